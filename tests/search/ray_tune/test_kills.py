"""Searches in processes of their own, ended in every way that a process can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog, RunDirectory, run_lock
from gsfl_tune.search.study.journal import read_studies
from tests.waiting import wait_until

TRIALS = 5
EPOCHS = 80
OVERRIDES = (
    f"search.trials={TRIALS}",
    f"training.head.epochs={EPOCHS}",
    "search.scheduler.name=none",
    "search.sampler.name=random",
)
FINISHED = {"COMPLETE", "PRUNED", "FAIL"}

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(ray_of_tests: None, run: RunDirectory, cache_dir: Path) -> Iterator[Start]:
    import ray

    environment = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_MODE": "token",
        # The Ray of these tests is on loopback; Ray would look for it on the network card.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    processes: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.search.driver",
                str(run.path),
                str(cache_dir),
                *OVERRIDES,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _finished(run: RunDirectory) -> dict[int, tuple[str, float | None]]:
    return {
        trial.number: (trial.state.name, trial.value)
        for trial in read_studies(run.journal).get("search", [])
        if trial.state.name in FINISHED
    }


def _epochs(run: RunDirectory) -> int:
    return sum(len(EpochLog(path).read()) for path in run.trials().rglob("epochs.jsonl"))


def _ends_well(run: RunDirectory, start: Start, before: dict[int, tuple[str, float | None]]) -> str:
    mtimes = {
        number: (run.trial("search", number) / "epochs.jsonl").stat().st_mtime_ns
        for number in before
    }
    process = start()
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    after = _finished(run)
    assert len(after) == TRIALS
    assert {state for state, _ in after.values()} == {"COMPLETE"}
    assert {number: after[number] for number in before} == before
    for number in before:
        path = run.trial("search", number) / "epochs.jsonl"
        assert path.stat().st_mtime_ns == mtimes[number], "a finished trial was run again"
    for number in after:
        log = EpochLog(run.trial("search", number) / "epochs.jsonl").read()
        assert [record["epoch"] for record in log] == list(range(1, EPOCHS + 1))
    return output


@pytest.mark.slow
def test_kill_9_of_the_driver_loses_no_finished_trial(run: RunDirectory, start: Start) -> None:
    process = start()
    wait_until(
        lambda: len(_finished(run)) >= 1 and _epochs(run) % EPOCHS > 10,
        "a trial has finished and another is under way",
        timeout=120,
        process=process,
    )
    process.kill()
    process.communicate()
    before = _finished(run)
    assert 1 <= len(before) < TRIALS
    output = _ends_well(run, start, before)
    assert "continues where it stopped" in output


@pytest.mark.slow
def test_signals_save_what_runs_and_a_second_driver_is_refused(
    run: RunDirectory, start: Start
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        before = len(_finished(run))
        process = start()
        wait_until(
            lambda n=before: len(_finished(run)) > n and _epochs(run) % EPOCHS > 10,  # type: ignore[misc]
            "one more trial has finished and another is under way",
            timeout=120,
            process=process,
        )
        with pytest.raises(UserError, match=f"process {process.pid}"), run_lock(run):
            pass
        # To the whole group, as a terminal does: Ray's processes must not take it for themselves.
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 3, output
        assert "interrupted" in output
        assert "Traceback" not in output
        assert not run.interrupt_file.exists()
        assert len(_finished(run)) < TRIALS
        saved = {int(path.parent.name) for path in run.trials().rglob("checkpoint.pt")}
        assert saved - _finished(run).keys(), "what runs was not saved"
    _ends_well(run, start, _finished(run))


@pytest.mark.slow
def test_kill_9_of_a_driver_with_a_ray_of_its_own(run: RunDirectory, cache_dir: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.search.driver",
        str(run.path),
        str(cache_dir),
        *OVERRIDES,
    ]

    def start() -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    process = start()
    wait_until(
        lambda: len(_finished(run)) >= 2, "two trials have finished", timeout=120, process=process
    )
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _ends_well(run, start, _finished(run))
    # What the dead driver started goes by itself.
    gone, left = psutil.wait_procs(family, timeout=60)
    assert gone
    assert left == []
