"""A run directory that vanishes under its driver."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.search import Interrupt, Presence, present
from gsfl_tune.search.opening import presence
from gsfl_tune.search.opening.presence import RunGone
from tests.search.experiments import YAML
from tests.waiting import wait_until


def test_whatever_goes_wrong_once_it_is_gone_is_one_sentence(run: RunDirectory) -> None:
    with run_lock(run):
        with pytest.raises(KeyError), present(run):
            raise KeyError("seconds")
        shutil.rmtree(run.path)
        # Whoever writes next makes it anew.
        run.path.mkdir()
        for error in (KeyError("seconds"), FileNotFoundError(), EnvironmentProblem("x")):
            with pytest.raises(RunGone, match="the run directory is gone"), present(run):
                raise error
        with pytest.raises(KeyboardInterrupt), present(run):
            raise KeyboardInterrupt


def test_it_is_noticed_while_trials_run(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_LOOK_SECONDS", 0.0)
    with run_lock(run):
        interrupt = Interrupt(run)
        watcher = Presence(run, interrupt)
        watcher.tick()
        run.path.rename(run.path.with_name("moved"))
        watcher.tick()
        assert not interrupt.requested, "a moment is no loss"
        for _ in range(3):
            watcher.tick()
        assert interrupt.requested
        with pytest.raises(EnvironmentProblem, match="is gone"):
            interrupt.raise_trouble()


@pytest.mark.slow
def test_a_search_whose_directory_is_removed_ends_with_a_sentence(tmp_path: Path) -> None:
    file, run = tmp_path / "tiny.yaml", RunDirectory(tmp_path / "run")
    file.write_text(YAML)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gsfl_tune", "search", str(file)),
            *("--run-dir", str(run.path), "--trials", "5000"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"GSFL_TUNE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_until(
            lambda: list(run.trials("search").glob("*/epochs.jsonl")),
            "a trial has trained",
            timeout=120,
            process=process,
        )
        shutil.rmtree(run.path, ignore_errors=True)
        output, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == 1, json.dumps([output, errors])
    assert "Traceback" not in output + errors
    assert "the run directory is gone" in errors
    assert len(errors.strip().splitlines()) == 1, errors
