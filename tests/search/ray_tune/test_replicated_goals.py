"""Folds of a search with several objectives, on a real Ray and a real journal."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import replicate_directories
from gsfl_tune.search import StudyOutcome, choose_finalists, pareto_entries
from gsfl_tune.search.schedulers.pareto_asha import place_among
from gsfl_tune.search.study.goals import others_by_rung
from gsfl_tune.search.study.pareto import front
from gsfl_tune.search.workers.replicates import errors_of, rows_of
from tests.search.experiments import experiment, searched
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_of_tests")

ACCURACY, NLL = "validation/accuracy", "validation/nll"
GOALS = (
    "model.head=plain",
    "search.folds=2",
    f"search.metric={ACCURACY}",
    f"search.objectives=[{ACCURACY}, {NLL}, size_mb]",
    "search.scheduler.reduction=2",
    "search.scheduler.by_objectives=true",
    "search.sampler.name=random",
    "training.head.epochs=2",
    "search.trials=6",
)
FIRST_END = 1


@pytest.fixture
def search(cache_dir: Path) -> Callable[..., StudyOutcome]:
    def run_it(run: RunDirectory, slots: Slots, *overrides: str, **options: Any) -> StudyOutcome:
        options = {"save_seconds": 0, "feature_dim": 512, **options}
        tried = experiment(*GOALS, *overrides)
        return searched(tried, run, resources=slots, cache_dir=cache_dir, **options)

    return run_it


def _last(run: RunDirectory, number: int, key: str) -> list[float]:
    """The number after the last epoch of every fold, from the trial's own files."""
    logs = [
        EpochLog(each / "epochs.jsonl").read()
        for each in replicate_directories(run.trial("search", number))
    ]
    return [float(records[-1][key]) for records in logs]


def _told(study: Any) -> list[Any]:
    return [
        (t.number, t.state.name, dict(study.rungs(t)), others_by_rung(t), t.values)
        for t in study.trials()
    ]


@pytest.mark.slow
def test_every_objective_is_a_mean_and_survivors_are_of_the_first_fronts(
    run: RunDirectory, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    study = search(run, one_slot).study
    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    before: list[list[float]] = []
    for trial in study.trials():
        rungs, others, rows = study.rungs(trial), others_by_rung(trial), rows_of(trial)
        for k in rows:
            count = k - FIRST_END + 1
            means = [
                statistics.fmean(_last(run, trial.number, key)[:count]) for key in (ACCURACY, NLL)
            ]
            assert [rungs[k], others[k][NLL]] == pytest.approx(means)
        if trial.state.name == "COMPLETE":
            assert len(rows) == 2
            assert trial.values == pytest.approx([*means, others[k]["size_mb"]])
            for key, column in ((ACCURACY, "error"), (NLL, f"error.{NLL}")):
                own = _last(run, trial.number, key)
                error = float(np.std(own, ddof=1) / np.sqrt(2))
                assert errors_of(trial)[key] == pytest.approx(error)
                assert table.loc[trial.number, column] == pytest.approx(error)
        if rows and not trial.user_attrs.get("protected"):
            # With one slot the rung knows exactly the trials before.
            costs = [-rungs[FIRST_END], others[FIRST_END][NLL], others[FIRST_END]["size_mb"]]
            others_there = np.array(before, dtype=float)
            ahead = place_among(np.array(costs), others_there) if before else 0
            assert (len(rows) == 2) == (ahead <= len(before) / 2)
        if rows:
            first = [-rungs[FIRST_END], others[FIRST_END][NLL], others[FIRST_END]["size_mb"]]
            before.append(first)
    found = front(study.trials(), study.goals.directions)
    assert found
    (best,) = choose_finalists(study, 1)
    assert best.number == min(found, key=lambda t: (-t.values[0], t.number)).number
    entries = pareto_entries(experiment(*GOALS), run)
    assert [each["trial"] for each in entries] == [trial.number for trial in found]
    for entry, trial in zip(entries, found, strict=True):
        assert entry["errors"] == errors_of(trial)
        assert list(entry["errors"]) == [ACCURACY, NLL]
        assert entry["replicates"] == 2


@pytest.mark.slow
def test_a_search_killed_between_folds_goes_on_behind_the_finished_ones(
    run: RunDirectory,
    tmp_path: Path,
    cache_dir: Path,
    one_slot: Slots,
    search: Callable[..., StudyOutcome],
) -> None:
    import ray

    overrides = ("training.head.epochs=40", "search.trials=2", "search.scheduler.name=none")
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.search.driver", str(run.path), str(cache_dir)),
            *(*GOALS, *overrides),
        ],
        env={
            **os.environ,
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as driver:
        second = run.trial("search", 0) / "replicate-2" / "epochs.jsonl"
        try:
            wait_until(second.exists, "the first fold has ended")
        finally:
            driver.send_signal(signal.SIGKILL)
    first = (run.trial("search", 0) / "epochs.jsonl").read_text()
    study = search(run, one_slot, *overrides, feature_dim=None).study
    assert (run.trial("search", 0) / "epochs.jsonl").read_text() == first
    alone = RunDirectory(tmp_path / "straight")
    straight = search(alone, one_slot, *overrides, feature_dim=None).study
    assert _told(study) == _told(straight)
