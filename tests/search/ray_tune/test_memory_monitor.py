"""Trials whose processes Ray ends for want of memory, on a Ray that does so early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray._private.utils import get_system_memory, get_used_memory

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.run import RunDirectory
from gsfl_tune.search.ray_tune.worker_losses import Failure, failure
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import experiment, searched
from tests.search.trainables import Hungry

# What Ray, its workers and other programs may take before anybody is ended.
MARGIN = 6 * 2**30


def main(path: str, cache: str) -> None:
    with ray_session(cpus=1):
        searched(
            experiment(
                "search.trials=4", "search.scheduler.name=none", "search.sampler.name=random"
            ),
            RunDirectory(path),
            resources=Slots(cpu=1, gpu=0, count=1),
            cache_dir=Path(cache),
            trainable=Hungry,
        )


def test_what_the_memory_monitor_says() -> None:
    text = (
        "Failure # 1 (occurred at 2026-11-22_04-15-37)\n"
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
        "127.0.0.1, ID: 5b5d9f82) was 2.34GB used / 23.54GB limit (0.099514)\n"
        "OOM kill reason: Memory usage 2509152256B exceeded threshold of 2457804544B\n"
        "Top 10 memory users: PID\tMEM(GB)\tCOMMAND\n"
        "Refer to the documentation on how to address the out of memory issue: https://docs\n"
    )
    assert failure(text) == Failure(
        "memory",
        "the worker process was ended as its node ran low on memory (2.34GB of 23.54GB used)",
    )


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < 2 * MARGIN, reason="needs memory to waste")
def test_a_trial_that_takes_its_nodes_memory_is_tried_with_half_the_batch(
    run: RunDirectory, cache_dir: Path
) -> None:
    threshold = (get_used_memory() + MARGIN) / get_system_memory()
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {
        "RAY_memory_usage_threshold": str(threshold),
        "RAY_memory_monitor_refresh_ms": "100",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.search.ray_tune.test_memory_monitor",
            str(run.path),
            str(cache_dir),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = read_studies(run.journal)["search"]
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"], done.stdout + done.stderr
    assert trials[1].user_attrs["batch_halved"]
    assert "out of memory, at half the batch too" in trials[2].user_attrs["reason"]
    assert "its node ran low on memory" in trials[2].user_attrs["reason"]


if __name__ == "__main__":
    main(*sys.argv[1:])
