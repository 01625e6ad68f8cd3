"""How busy slots and GPUs were, in a file that every driver of the run adds to."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory, WorkerLog, read_json
from gsfl_tune.run.utilisation import read_sessions
from gsfl_tune.search import Utilisation
from gsfl_tune.search.observers.utilisation import GpuSampler, _add, _Gpu, _Node

SMI = """#!/bin/sh
echo "0, GPU-aaaa, H100, 81559, 1000, 40"
echo "1, GPU-bbbb, H100, 81559, 2000, [N/A]"
"""


def test_a_gpu_that_trials_share_is_occupied_once() -> None:
    """Counted second by second; trials are told of when they have used their slots."""
    gpu = _Gpu()
    seconds: set[int] = set()
    for begin, end in ((0, 10), (5, 12), (20, 25), (18, 30), (40, 41), (26, 43)):
        gpu.take(begin, end)
        seconds |= set(range(begin, end))
        assert gpu.occupied == len(seconds)


def test_a_node_shows_as_many_gpus_as_it_has() -> None:
    node = _Node("host", 2)
    assert sorted(node.all_gpus()) == ["0", "1"]
    node.gpu("GPU-aaaa").take(0.0, 1.0)
    # A trial names it by its id: it is one of the two.
    found = node.all_gpus()
    assert len(found) == 2
    assert found["GPU-aaaa"].occupied == 1.0


def test_samples_of_the_driver_are_added_to_the_gpu_that_trials_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GpuSampler().sample() is None
    tool.write_text(SMI)
    tool.chmod(0o755)
    node = _Node("host", 2)
    node.gpu("GPU-aaaa").take(0.0, 1.0)
    for used in (1000, 3000, 500):
        tool.write_text(SMI.replace(", 1000, 40", f", {used}, 40"))
        rows = GpuSampler().sample()
        assert rows is not None
        for row in rows:
            _add(node, row)
    found = node.all_gpus()
    assert found["GPU-aaaa"].samples == 3
    assert found["GPU-aaaa"].busy == pytest.approx(1.2)
    assert found["GPU-aaaa"].memory == 3000 * 1024**2
    # A load that the driver does not tell is no load of zero.
    assert found["1"].samples == 0
    assert found["1"].memory == 2000 * 1024**2


def test_where_trials_ran_is_in_the_log_of_workers(run: RunDirectory) -> None:
    run.path.mkdir()
    place = {"place_node": "abcdef012345", "place_worker": 7, "place_gpus": "0,1"}
    watcher = Utilisation(run, 2)
    watcher.occupied({**place, "trial_number": 3, "rung": 1, "epoch": 2}, 5.0)
    watcher.occupied({**place, "job": "seed 1"}, 4.0)
    watcher.occupied({"trial_number": 4}, 4.0)  # of a version that does not tell
    trial, job = WorkerLog(run).read()
    assert (trial["trial"], trial["rung"], trial["epoch"]) == (3, 1, 2)
    assert (trial["node"], trial["worker"], trial["gpus"]) == ("abcdef", 7, "0,1")
    assert trial["end"] - trial["begin"] == pytest.approx(5.0, abs=0.01)
    assert job["job"] == "seed 1"
    assert "trial" not in job


def test_every_driver_adds_an_entry_and_slots_without_a_job_do_not_count(
    ray_of_tests: None, run: RunDirectory
) -> None:
    run.path.mkdir()
    for total in (3, 9):
        watcher = Utilisation(run, 4)
        watcher.jobs_begin("retrains", total, 1)
        watcher.occupied({"job": "seed 1"}, 0.25)
        watcher.tick()
        watcher.jobs_finish(interrupted=False)
    first, second = read_sessions(run)
    for session, slots in ((first, 2), (second, 4)):
        assert session["trial_seconds"] == 0.25
        assert session["slot_seconds"] == pytest.approx(slots * session["seconds"], abs=0.05)
    assert read_json(run.utilisation_file)["seconds"] >= 0
