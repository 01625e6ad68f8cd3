"""Searches with folds and repeats on a real Ray."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import replicate_directories
from gsfl_tune.search import (
    Interrupt,
    StudyOutcome,
    Watcher,
    choose_finalists,
    curves_of,
    open_study,
)
from gsfl_tune.search.workers.replicates import rows_of, standard_error
from tests.search.experiments import experiment, searched, states
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_of_tests")

SMALL = (
    "search.sampler.name=random",
    "search.scheduler.reduction=2",
    "search.trials=6",
    "training.head.epochs=2",
)
FIRST_END = 1


@pytest.fixture
def search(cache_dir: Path) -> Callable[..., StudyOutcome]:
    def run_it(run: RunDirectory, slots: Slots, *overrides: str, **options: Any) -> StudyOutcome:
        options = {"save_seconds": 0, "feature_dim": 512, **options}
        tried = experiment(*SMALL, *overrides)
        return searched(tried, run, resources=slots, cache_dir=cache_dir, **options)

    return run_it


def _last(run: RunDirectory, number: int, key: str = "validation/nll") -> list[float]:
    """The number after the last epoch of every training, from the trial's own files."""
    logs = [
        EpochLog(each / "epochs.jsonl").read()
        for each in replicate_directories(run.trial("search", number))
    ]
    return [float(records[-1][key]) for records in logs]


@pytest.mark.slow
def test_values_are_means_and_weak_trials_get_fewer_folds(
    run: RunDirectory, two_slots: Slots, search: Callable[..., StudyOutcome]
) -> None:
    outcome = search(run, two_slots, "search.folds=3")
    trials = outcome.study.trials()
    counts = {trial.number: len(rows_of(trial)) for trial in trials}
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    for trial in trials:
        own = _last(run, trial.number)
        for k, value in trial.intermediate_values.items():
            if k >= FIRST_END:
                assert value == pytest.approx(statistics.fmean(own[: k - FIRST_END + 1]))
        assert (counts[trial.number] == 3) == (trial.state.name == "COMPLETE")
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(statistics.fmean(own))
    assert min(counts.values()) < 3
    # Of the trials with all folds the best mean wins, whatever a single fold says.
    (best,) = choose_finalists(outcome.study, 1, curves_of(outcome.study, run))
    whole = [number for number, count in counts.items() if count == 3]
    assert best.number == min(whole, key=lambda number: statistics.fmean(_last(run, number)))
    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    for number, count in counts.items():
        if count > 1:
            own = _last(run, number)[:count]
            assert table.loc[number, "replicates"] == count
            assert table.loc[number, "error"] == pytest.approx(standard_error(own))
    row = table.loc[best.number]
    assert row["validation/nll"] == pytest.approx(row["value"])
    assert row["epochs"] == 6
    # Finished trials keep no checkpoint but that of their first training.
    kept = {path.parent.name for path in run.path.rglob("checkpoint.pt")}
    assert all(name.isdecimal() for name in kept)


@pytest.mark.slow
def test_protection_ends_with_the_first_training(
    run: RunDirectory, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    """A first trial is trained to its end, and gets further seeds only if it deserves them."""
    queue = "[{training.head.learning_rate: 0.0001, model.dropout: 0.6}]"
    outcome = search(
        run, one_slot, "search.repeats=2", f"search.enqueue={queue}", "search.trials=3"
    )
    trials = outcome.study.trials()
    assert all(trial.user_attrs["protected"] for trial in trials)
    assert all(FIRST_END in trial.intermediate_values for trial in trials)
    values = [trial.intermediate_values[FIRST_END] for trial in trials]
    # With one slot: the first one goes on, each later one if it is not worse than the median.
    expected = [True, values[1] <= values[0], values[2] <= statistics.median(values[:2])]
    assert [len(rows_of(trial)) == 2 for trial in trials] == expected
    assert [trial.state.name == "COMPLETE" for trial in trials] == expected


class _StopInSecondFold(Watcher):
    """Asks to stop when the first trial has ended its first fold."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def rung(self, number: int, k: int, value: float) -> None:
        if k == FIRST_END:
            self._interrupt.request()


@pytest.mark.slow
def test_an_interrupted_search_goes_on_in_the_fold_where_it_stopped(
    tmp_path: Path, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    straight = search(RunDirectory(tmp_path / "straight"), one_slot, "search.folds=2")
    run = RunDirectory(tmp_path / "stopped")
    interrupt = Interrupt(run)
    stopped = search(
        run,
        one_slot,
        "search.folds=2",
        interrupt=interrupt,
        watchers=[_StopInSecondFold(interrupt)],
    )
    assert stopped.interrupted
    (first, *_) = stopped.study.trials()
    assert first.state.name == "RUNNING"
    assert list(rows_of(first)) == [FIRST_END]
    before = (run.trial("search", 0) / "epochs.jsonl").read_text()
    interrupt.clear()
    resumed = search(run, one_slot, "search.folds=2")
    assert not resumed.interrupted
    # The finished fold was not trained again, to the seconds that it took.
    assert (run.trial("search", 0) / "epochs.jsonl").read_text() == before
    assert states(resumed.study) == states(straight.study)


@pytest.mark.slow
def test_a_search_killed_in_the_second_fold_goes_on_there(
    run: RunDirectory, cache_dir: Path, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    import ray

    overrides = ("search.folds=2", "training.head.epochs=60", "search.scheduler.name=none")
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.search.driver", str(run.path), str(cache_dir)),
            *(*SMALL, "search.trials=2", *overrides),
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
            wait_until(lambda: len(EpochLog(second).read()) >= 2, "the second fold has begun")
        finally:
            driver.send_signal(signal.SIGKILL)
    first = (run.trial("search", 0) / "epochs.jsonl").read_text()
    outcome = search(run, one_slot, "search.trials=2", *overrides)
    trial = outcome.study.trial(0)
    assert trial.state.name == "COMPLETE"
    assert (run.trial("search", 0) / "epochs.jsonl").read_text() == first
    assert len(EpochLog(second).read()) == 60
    assert trial.value == pytest.approx(statistics.fmean(_last(run, 0)))


def test_the_number_of_folds_cannot_change_within_a_study(run: RunDirectory) -> None:
    open_study(experiment("search.folds=2"), run).close()
    with pytest.raises(UserError, match=r"search\.folds: was 2, found 3"):
        open_study(experiment("search.folds=3"), run)


def test_with_folds_there_is_no_race_unless_the_file_asks_for_one() -> None:
    assert experiment("search.folds=2").defaults().search.finalists == 1
    assert experiment("search.folds=2", "search.finalists=2").defaults().search.finalists == 2
    assert experiment("search.repeats=2").defaults().search.finalists == 3
