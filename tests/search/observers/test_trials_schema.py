"""``trials.parquet`` against its description in the documentation, and read by other programs."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pandas
import polars
import pytest
from pyarrow import parquet

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, write_trials
from tests.search.experiments import experiment

PAGE = Path(__file__).parents[3] / "docs" / "ecosystem.md"


def documented() -> dict[str, str]:
    """Column to type, from the first table of the section."""
    section = PAGE.read_text().split("## trials.parquet")[1].split("| columns |")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([\w\[\]]+) \|", section, re.MULTILINE))


@pytest.fixture
def written(run: RunDirectory) -> RunDirectory:
    """Trials in every state, with and without conditional parameters."""
    tried = experiment(
        "training.finetune.epochs={choice: [0, 1]}",
        "training.finetune.blocks={choice: [all, 2], when: {training.finetune.epochs: 1}}",
        "data.augment.flip={choice: [true, false]}",
    )
    study = open_study(tried, run)
    for head in ("gsfl", "plain", "gsfl", "plain"):
        params = {**tried.default_params(), "model.head": head}
        params["training.finetune.epochs"] = int(head == "gsfl")
        params["model.latent_dim"] = 8 * (1 + len(study.trials()))
        for name in ("model.groups.count", "training.finetune.blocks"):
            params.pop(name, None)
        if head == "gsfl":
            params |= {"model.groups.count": 3, "training.finetune.blocks": "all"}
        study.enqueue(params, "enqueue[0]")
        study.ask()
    log = run.trial("search", 0) / "epochs.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"epoch": 1, "train/loss": 1, "validation/nll": 2.5, "seconds": 0.5}\n')
    study.complete(0, 2.5, 0)
    study.prune(1, 3.5, 0)
    study.fail(2, "out of memory")
    write_trials(run)
    return run


def test_the_file_is_as_documented(written: RunDirectory) -> None:
    schema = parquet.read_schema(written.trials_parquet)
    found = {field.name: str(field.type) for field in schema}
    described = documented()
    assert len(described) == 12
    assert dict(list(found.items())[: len(described)]) == described
    rest = {name: kind for name, kind in found.items() if name not in described}
    assert rest == {
        "params.data.augment.flip": "bool",
        "params.model.dropout": "double",
        "params.model.groups.count": "int64",
        "params.model.head": "string",
        "params.model.latent_dim": "int64",
        "params.training.finetune.blocks": "string",
        "params.training.finetune.epochs": "int64",
        "params.training.head.learning_rate": "double",
        "rungs.0": "double",
        "train/loss": "double",
        "validation/nll": "double",
    }
    assert schema.metadata[b"gsfl_tune.trials"] == b"1"


def test_three_programs_read_the_same(written: RunDirectory) -> None:
    file = str(written.trials_parquet)
    states = ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    counts = [3, None, 3, None]
    frame = pandas.read_parquet(file)
    assert list(frame["state"]) == states
    assert frame["params.model.groups.count"].isna().tolist() == [False, True, False, True]
    table = polars.read_parquet(file)
    assert table["state"].to_list() == states
    assert table["params.model.groups.count"].to_list() == counts
    assert table["params.model.groups.count"].dtype == polars.Int64
    assert table["started"].dtype == polars.Datetime("us")
    rows = duckdb.sql(
        f"SELECT state, value, reason, \"params.model.groups.count\" FROM '{file}' ORDER BY number"
    ).fetchall()
    assert rows == [
        ("COMPLETE", 2.5, None, 3),
        ("PRUNED", None, None, None),
        ("FAIL", None, "out of memory", 3),
        ("RUNNING", None, None, None),
    ]


def test_a_study_without_trials_has_the_columns_too(run: RunDirectory) -> None:
    open_study(experiment(), run)
    write_trials(run)
    schema = parquet.read_schema(run.trials_parquet)
    assert {field.name: str(field.type) for field in schema} == documented()
