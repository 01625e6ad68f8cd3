from __future__ import annotations

import json

import pandas
import pyarrow
from pyarrow import parquet

from gsfl_tune.report.files import read_trials
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, write_trials
from gsfl_tune.search.observers import trials_parquet as table
from tests.search.experiments import experiment


def test_a_parameter_that_was_not_active_is_null_among_words_and_numbers(
    run: RunDirectory,
) -> None:
    tried = experiment(
        "training.finetune.epochs={choice: [0, 1]}",
        "training.finetune.blocks={choice: [all, 2], when: {training.finetune.epochs: 1}}",
    )
    study = open_study(tried, run)
    for epochs, blocks in ((1, "all"), (1, 2), (0, None)):
        params = {**tried.default_params(), "training.finetune.epochs": epochs}
        params.pop("training.finetune.blocks", None)
        if blocks is not None:
            params["training.finetune.blocks"] = blocks
        study.enqueue(params, "enqueue")
        study.ask()
    write_trials(run)
    column = pandas.read_parquet(run.trials_parquet)["params.training.finetune.blocks"]
    assert list(column[:2]) == ["all", "2"]
    assert column[2:].isna().all()


def test_the_table_knows_of_trials_that_run(run: RunDirectory, monkeypatch) -> None:
    monkeypatch.setattr(table, "SECONDS_BETWEEN_WRITES", 0.0)
    study = open_study(experiment(), run)
    written = table.TrialTable(run, study)
    monkeypatch.setattr(written, "_due", 0.0)
    asked = study.ask()
    assert asked is not None
    written.started(asked.number, asked.params, again=False)
    written.tick()
    row = pandas.read_parquet(run.trials_parquet).iloc[0]
    assert row["state"] == "RUNNING"
    assert {k[7:] for k in row.index if k.startswith("params.")} == set(asked.params)
    study.report(asked.number, 0, 0.25)
    written.rung(asked.number, 0, 0.25)
    monkeypatch.setattr(written, "_due", 0.0)
    written.tick()
    assert pandas.read_parquet(run.trials_parquet)["rungs.0"].tolist() == [0.25]


def test_a_latency_of_a_busy_machine_is_marked(run: RunDirectory) -> None:
    tried = experiment(
        "search.metric=validation/accuracy",
        "search.objectives=[validation/accuracy, latency_ms]",
        "search.scheduler.by_objectives=true",
    )
    study = open_study(tried, run)
    for number, reliable in enumerate((True, False, False, None)):
        study.ask()
        measured = {"latency_ms": 5.0, "reliable": reliable, "spread": 0.2, "others": number / 2}
        others = {"latency_ms": 5.0}
        if number < 2:
            study.complete(number, 0.5, 2, latency=measured, others=others)
        elif reliable is not None:
            study.note_latency(number, measured)
            study.prune(number, 0.5, 0, others)
    write_trials(run)
    rows = pandas.read_parquet(run.trials_parquet)
    assert rows["latency_ms"].tolist()[:3] == [5.0] * 3
    assert rows["latency_reliable"].tolist() == [True, False, False, None]
    assert rows["latency_spread"].tolist()[:3] == [0.2] * 3
    assert rows["latency_others"].tolist()[:3] == [0.0, 0.5, 1.0]
    assert parquet.read_schema(run.trials_parquet).field("latency_reliable").type == pyarrow.bool_()


def test_what_trained_backbones_were_computed_in(run: RunDirectory) -> None:
    study = open_study(experiment("training.finetune.epochs=1"), run)
    for lines in (
        [{"epoch": 1, "stage": "head"}, {"epoch": 2, "stage": "finetune", "precision": "bf16"}],
        [{"epoch": 1, "stage": "head"}],
    ):
        asked = study.ask()
        assert asked is not None
        file = run.trial("search", asked.number) / "epochs.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_trials(run)
    assert parquet.read_table(run.trials_parquet)["precision"].to_pylist() == ["bf16", None]
    (trained, _) = read_trials(run, "validation/accuracy")
    assert trained.precision == "bf16"
