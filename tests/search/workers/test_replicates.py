from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from gsfl_tune.data.folds import Fold
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import replicate_directories, replicate_directory
from gsfl_tune.search.workers.replicates import (
    REPLICATES,
    Replicates,
    error_of,
    error_text,
    means,
    rows_of,
    standard_error,
)
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from tests.search.experiments import experiment


def test_every_fold_comes_before_the_next_seed() -> None:
    several = Replicates(folds=3, repeats=2)
    assert several.count == 6
    assert [several.fold(number) for number in range(6)] == [
        Fold(0, 3), Fold(1, 3), Fold(2, 3), Fold(0, 3), Fold(1, 3), Fold(2, 3),
    ]  # fmt: skip
    seeds = [several.seed(number, 7) for number in range(6)]
    assert seeds[:3] == [7] * 3
    assert len({*seeds}) == 2
    assert several.last_rung(4) == 9


def test_repeats_alone_have_no_folds_and_none_of_the_seeds_of_the_finals() -> None:
    several = Replicates(repeats=4)
    assert [several.fold(number) for number in range(4)] == [None] * 4
    seeds = {several.seed(number, 3) for number in range(4)}
    assert len(seeds) == 4
    assert not seeds & set(range(4, 100))
    assert Replicates().count == 1


def test_the_error_is_that_of_the_mean() -> None:
    values = [0.5, 0.75, 0.625, 0.8125]
    expected = float(np.std(values, ddof=1) / np.sqrt(4))
    assert standard_error(values) == pytest.approx(expected, rel=1e-12)
    assert standard_error([0.5]) is None
    assert standard_error([0.5, 0.5]) == 0


def test_only_numbers_that_every_training_has_are_averaged() -> None:
    assert means([{"a": 1.0, "b": 4.0}, {"a": 2.0}]) == {"a": 1.5}


def test_a_training_whose_rung_was_never_reported_does_not_count() -> None:
    known = {str(k): {"validation/nll": value} for k, value in ((2, 1.0), (3, 2.0), (4, 9.0))}
    trial = create_trial(
        state=TrialState.RUNNING,
        intermediate_values={0: 5.0, 1: 4.0, 2: 1.0, 3: 1.5},
        user_attrs={REPLICATES: known},
    )
    assert rows_of(trial) == {2: {"validation/nll": 1.0}, 3: {"validation/nll": 2.0}}
    assert error_of(trial) == (pytest.approx(0.5), 2)
    assert error_text(trial) == " ± 0.5000 (2 replicates)"
    assert error_text(create_trial(value=1.0)) == ""
    # Two trainings that came to the same: "± 0.0000" would read as certainty.
    trial.set_user_attr(REPLICATES, {k: {"validation/nll": 1.5} for k in ("2", "3")})
    assert error_text(trial) == " (2 replicates)"


@pytest.fixture
def task(run: RunDirectory, cache_dir: Path) -> Task:
    config = experiment("model.head=plain", "training.head.epochs=2").defaults()
    return Task(
        number=7,
        config=config,
        directory=run.trial("search", 7),
        interrupt=run.interrupt_file,
        metric="validation/nll",
        others=["validation/accuracy", "size_mb"],
        rungs=[1, 2],
        cache_dir=cache_dir,
        save_seconds=0,
        replicates=Replicates(folds=3),
    )


def _all(worker: TrialWorker) -> list[dict[str, Any]]:
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    return results


def _last(task: Task, number: int) -> dict[str, Any]:
    return EpochLog(replicate_directory(task.directory, number) / "epochs.jsonl").read()[-1]


def test_values_are_means_over_the_folds_so_far(task: Task) -> None:
    results = _all(TrialWorker(task))
    assert [each["rung"] for each in results] == [0, 1, 2, 3]
    assert [each["epoch"] for each in results] == [1, 2, 4, 6]
    assert [each["done"] for each in results] == [False, False, False, True]
    assert ["replicate" in each for each in results] == [False, True, True, True]
    for metric in ("validation/nll", "validation/accuracy"):
        own = [_last(task, number)[metric] for number in range(3)]
        found = [
            each[metric] if metric == task.metric else json.loads(each["others"])[metric]
            for each in results[1:]
        ]
        assert found == [pytest.approx(statistics.fmean(own[: k + 1])) for k in range(3)]
    assert len({_last(task, number)["validation/nll"] for number in range(3)}) == 3
    # What does not change with the images is reported as it is.
    sizes = {json.loads(each["others"])["size_mb"] for each in results}
    assert len(sizes) == 1
    # Only the checkpoint of the first training stays after the next one has begun.
    first, second, third = replicate_directories(task.directory)
    assert (first / "checkpoint.pt").exists()
    assert not (second / "checkpoint.pt").exists()
    assert (third / "checkpoint.pt").exists()


def test_a_trial_goes_on_in_the_middle_of_the_second_fold(task: Task, run: RunDirectory) -> None:
    whole = _all(TrialWorker(task))
    kept = {number: _last(task, number)["validation/nll"] for number in range(3)}
    again = task.model_copy(update={"directory": run.trial("search", 8)})
    worker = TrialWorker(again)
    rows = [
        json.loads(each["replicate"])
        for each in (worker.step(), worker.step())
        if "replicate" in each
    ]
    # The process is gone after the first epoch of the second fold, which nothing has reported.
    killed = again.model_copy(update={"reported": 2, "finished": rows, "rungs": [1, 1]})
    TrialWorker(killed).step()
    second = replicate_directory(again.directory, 1)
    assert [each["epoch"] for each in EpochLog(second / "epochs.jsonl").read()] == [1]
    results = _all(TrialWorker(again.model_copy(update={"reported": 2, "finished": rows})))
    assert [each["rung"] for each in results] == [2, 3]
    assert [each["validation/nll"] for each in results] == [
        each["validation/nll"] for each in whole[2:]
    ]
    assert {number: _last(again, number)["validation/nll"] for number in range(3)} == kept


def test_a_repeat_is_another_seed_on_the_same_images(task: Task) -> None:
    task = task.model_copy(update={"replicates": Replicates(repeats=2), "others": []})
    results = _all(TrialWorker(task))
    assert [each["rung"] for each in results] == [0, 1, 2]
    own = [_last(task, number)["validation/nll"] for number in range(2)]
    assert own[0] != own[1]
    assert math.isclose(results[-1]["validation/nll"], statistics.fmean(own))


def test_the_time_limit_counts_all_trainings(task: Task) -> None:
    _all(TrialWorker(task))
    late = task.model_copy(
        update={
            "reported": 2,
            "finished": [{"validation/nll": 1.0}],
            "timeout": 1e-9,
            "directory": task.directory,
        }
    )
    for number in (1, 2):
        (replicate_directory(task.directory, number) / "checkpoint.pt").unlink(missing_ok=True)
    result = TrialWorker(late).step()
    assert result["failed"].startswith("longer than search.trial_timeout")
