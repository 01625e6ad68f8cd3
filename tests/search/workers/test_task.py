from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gsfl_tune.search.workers.replicates import Replicates
from gsfl_tune.search.workers.task import Task
from tests.search.experiments import experiment


def _task(tmp_path: Path, **values: object) -> Task:
    given = {
        "number": 3,
        "config": experiment().defaults(),
        "directory": tmp_path / "3",
        "interrupt": tmp_path / "interrupt",
        "metric": "validation/nll",
        "rungs": [1, 3, 4],
    }
    return Task(**{**given, **values})


def test_a_trial_with_one_training_ends_at_its_last_epoch(tmp_path: Path) -> None:
    task = _task(tmp_path)
    assert task.last_rung == 2
    assert [task.place(k) for k in range(3)] == [(0, 1), (0, 3), (0, 4)]
    assert task.name == "trial 3"


def test_every_further_training_has_one_rung_at_its_end(tmp_path: Path) -> None:
    task = _task(tmp_path, replicates=Replicates(folds=2, repeats=2))
    assert task.last_rung == 5
    assert [task.place(k) for k in range(2, 6)] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_it_arrives_in_a_worker_as_it_was_sent(tmp_path: Path) -> None:
    task = _task(tmp_path, replicates=Replicates(folds=3), finished=[{"validation/nll": 0.1 + 0.2}])
    assert Task.model_validate_json(task.model_dump_json()) == task
    with pytest.raises(ValidationError):
        _task(tmp_path, folds=3)
