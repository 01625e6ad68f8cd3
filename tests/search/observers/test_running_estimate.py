"""The estimate of the time left, in a file of the run directory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory, read_json, run_lock
from gsfl_tune.run.running_estimate import RunningEstimate, read_estimate
from gsfl_tune.search import Watcher
from gsfl_tune.search.observers.running_estimate import EstimateFile
from tests.search.experiments import experiment, searched


class Reader(Watcher):
    """Reads the file as often as the driver ticks."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self.found: list[RunningEstimate] = []

    def tick(self) -> None:
        if self._run.estimate_file.is_file():
            self.found.append(RunningEstimate(**read_json(self._run.estimate_file)))


@pytest.mark.slow
def test_a_search_writes_what_it_does_and_how_far_it_is(
    ray_of_tests: None, run: RunDirectory, cache_dir: Path
) -> None:
    run.path.mkdir(exist_ok=True)
    reader = Reader(run)
    outcome = searched(
        experiment("search.trials=3", "training.head.epochs=2"),
        run,
        resources=Slots(cpu=1, gpu=0, count=1),
        cache_dir=cache_dir,
        watchers=[EstimateFile(run, seconds=0), reader],
    )
    assert len(outcome.study.trials()) == 3
    assert {each.phase for each in reader.found} == {"search"}
    assert {each.total for each in reader.found} == {3}
    counts = [each.done for each in reader.found]
    assert counts == sorted(counts)
    assert counts[0] == 0
    last = RunningEstimate(**read_json(run.estimate_file))
    assert (last.done, last.total) == (3, 3)


@pytest.fixture
def jobs(run: RunDirectory) -> EstimateFile:
    run.path.mkdir(exist_ok=True)
    watcher = EstimateFile(run, seconds=0)
    watcher.expects(lambda: 250.0)
    watcher.jobs_begin("retraining the winner", 4, 1)
    return watcher


def test_trainings_are_counted_and_seconds_count_down(
    jobs: EstimateFile, run: RunDirectory
) -> None:
    jobs.job_ended("seed 1", {})
    jobs.tick()
    with run_lock(run):
        found = read_estimate(run)
    assert found is not None
    assert (found.phase, found.done, found.total) == ("retraining the winner", 2, 4)
    assert found.seconds == 250.0
    assert found.left is not None
    assert 0 < found.left <= 250.0
    earlier = RunningEstimate("search", 1, None, 30.0, time.time() - 20.0)
    assert earlier.left == pytest.approx(10.0, abs=2.0)
    assert RunningEstimate("search", 1, None, 30.0, time.time() - 50.0).left == 0.0


def test_without_a_driver_there_is_no_estimate(jobs: EstimateFile, run: RunDirectory) -> None:
    assert run.estimate_file.is_file()
    assert read_estimate(run) is None


def test_a_damaged_file_is_no_estimate(jobs: EstimateFile, run: RunDirectory) -> None:
    for text in ("", "{}", "[1]", '{"phase": "search", "more": 1}'):
        run.estimate_file.write_text(text)
        with run_lock(run):
            assert read_estimate(run) is None


def test_a_run_directory_that_is_gone_does_not_come_back(
    jobs: EstimateFile, run: RunDirectory
) -> None:
    shutil.rmtree(run.path)
    jobs.tick()
    assert not run.path.exists()
