"""A search by what wrong answers cost: from the file of costs to the tested winner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from gsfl_tune.data import prepare
from gsfl_tune.experiment import Experiment
from gsfl_tune.run.results import read_results

from .commands import gsfl_tune, make_home

OVERRIDES = (
    "search.metric=validation/expected_cost",
    "search.cost_matrix=costs.csv",
    "search.control=matched",
    "search.final_seeds=1",
    "search.scheduler.name=none",
)


def mean_cost(file: Path, costs: np.ndarray) -> float:
    with np.load(file) as found:
        answers = found["logits"].argmax(axis=1)
        pairs = zip(found["labels"].tolist(), answers.tolist(), strict=True)
        return float(np.mean([costs[label, answer] for label, answer in pairs]))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cheapest_configuration_wins_and_its_cost_is_tested(tmp_path_factory) -> None:
    home = make_home(tmp_path_factory)
    made = Experiment.load(home / "tiny.yaml")
    data = prepare(made.defaults().data, side=32, cache_dir=home / "cache")
    # Of no symmetry, and far from counting errors.
    costs = np.random.default_rng(0).integers(1, 30, (len(data.classes),) * 2).astype(float)
    np.fill_diagonal(costs, 0)
    lines = [["true", *data.classes]]
    lines += [[name, *map(str, row)] for name, row in zip(data.classes, costs, strict=True)]
    (home / "costs.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    settings = [word for each in OVERRIDES for word in ("--set", each)]
    done = gsfl_tune(home, "search", "tiny.yaml", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    run = home / "runs" / "tiny"

    table = pandas.read_parquet(run / "trials.parquet").set_index("number")
    assert set(table["state"]) == {"COMPLETE"}
    for number, value in table["value"].items():
        records = (run / "trials" / str(number) / "epochs.jsonl").read_text().splitlines()
        assert value == json.loads(records[-1])["validation/expected_cost"]
    found = read_results(run)
    cheapest = table["value"].nsmallest(2)
    raced = {path.name for path in (run / "finals").iterdir() if "plain" not in path.name}
    assert raced == {f"search-{number}" for number in cheapest.index}
    validated = {
        name: mean_cost(run / "finals" / name / "validate" / "seed-1" / "validation.npz", costs)
        for name in raced
    }
    winner = min(raced, key=validated.__getitem__)
    assert found.winner.trial == int(winner.removeprefix("search-"))
    assert found.winner.validation["expected_cost"].mean == pytest.approx(validated[winner])
    for name, result in ((winner, found.winner), (f"{winner}-plain", found.control)):
        tested = mean_cost(run / "finals" / name / "retrain" / "seed-1" / "test.npz", costs)
        assert result.test["expected_cost"].mean == pytest.approx(tested)
        # Not the share of errors, which another matrix would give.
        assert tested > 2 * (1 - result.test["accuracy"].mean)
    text = gsfl_tune(home, "results", run).stdout
    assert "cost of an answer" in text
    assert f"{found.winner.test['expected_cost'].mean:.2f}" in text
