"""The whole way with a run kept on S3, from the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import open_storage
from gsfl_tune.run.storage.journal_segments import find_segments, read_journal
from gsfl_tune.run.storage.retrying import WORTH_A_WORD
from gsfl_tune.search.study.journal import read_studies
from tests import warm
from tests.commands import EXPERIMENT
from tests.s3 import S3Server, s3_server
from tests.waiting import wait_until

OPTIONS = ("--set", "search.control=matched", "--set", "search.sampler.name=random")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def search(server: S3Server, tmp_path: Path) -> Any:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, **server.environment, "GSFL_TUNE_CACHE": str(tmp_path / "cache")}

    def run(*arguments: object, code: int = 0) -> str:
        done = warm.run(["search", "tiny.yaml", *arguments], cwd=tmp_path, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


def _results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    for volatile in ("cost", "environment"):
        found.pop(volatile)
    for side in ("winner", "control"):
        found[side]["config"].pop("storage")
    return found


# What is left of a budget may be kept for the finals, or nothing is left.
OVER = re.compile(r"search\.time_budget (of 100 s is used up|\(.+\) is for the finals)")


@pytest.mark.slow
def test_a_search_on_s3_says_what_one_in_a_directory_says(search: Any, tmp_path: Path) -> None:
    search("--run-dir", "path", *OPTIONS, "--set", "search.max_concurrent=1")
    stored = ("--storage", "s3://bucket/runs", *OPTIONS, "--set", "search.max_concurrent=1")
    output = search("--run-dir", "one", *stored)
    assert "storage: s3://bucket/runs/tiny" in output
    assert _results(tmp_path / "one") == _results(tmp_path / "path")
    assert "--resume continues it" in search("--run-dir", "two", *stored, code=2)
    # From the storage alone, on a machine that has nothing.
    shutil.rmtree(tmp_path / "one")
    search("--run-dir", "two", *stored, "--resume")
    assert _results(tmp_path / "two") == _results(tmp_path / "path")
    for name in ("model.safetensors", "config.json", "metrics.json"):
        assert (tmp_path / "two" / "best" / name).exists()
    # More trials than it was begun with.
    search("--run-dir", "three", *stored, "--resume", "--trials", "6")
    assert sum(_results(tmp_path / "three")["trials"].values()) == 6


@pytest.mark.slow
def test_a_storage_that_refuses_while_a_time_budget_ends_trials_does_not_end_the_search(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    run = RunDirectory(tmp_path / "run")
    said = tmp_path / "said.txt"
    # The first trials, defaults, are over soon; later ones are under way when the time is up.
    overrides = ("search.time_budget=100 s", "search.trials=500", "search.sampler.name=random")
    overrides += ("training.head.epochs={choice: [3, 1000]}",)
    overrides += ("search.control=off", "search.finalists=1", "search.scheduler.name=none")
    words = [sys.executable, "-m", "gsfl_tune", "search", "tiny.yaml", "--run-dir", str(run.path)]
    words += ["--storage", "s3://bucket/budget", *(f"--set={each}" for each in overrides)]
    with said.open("w") as file:
        driver = subprocess.Popen(
            words,
            cwd=tmp_path,
            env={**os.environ, "GSFL_TUNE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_for(ready: Callable[[], bool], what: str) -> None:
        wait_until(ready, what, timeout=300, process=driver, output=said.read_text)

    try:
        # What tells trials to save and stop.
        wait_for(run.interrupt_file.exists, "trials are told to stop")
        with server.feeling("refuse"):
            wait_for(lambda: OVER.search(said.read_text()) is not None, "the end is said")
            # Long enough to be worth a word.
            enough = time.time() + WORTH_A_WORD + 1
            wait_for(lambda: server.last_failed() > enough, "the driver is still refused")
        assert driver.wait(400) == 0, said.read_text()
    finally:
        driver.kill()
        driver.wait()
    output = said.read_text()
    assert OVER.search(output), output
    assert "Traceback" not in output
    # It was refused, and has everything nevertheless.
    assert re.search(r"storage s3://\S+ did not answer for .* repeated", output), output
    trials = read_studies(run.journal)["search"]
    assert 0 < len(trials) < 500
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    assert [trial for trial in trials if "time_budget" in trial.user_attrs.get("ended", "")]
    storage = open_storage("s3://bucket/budget/tiny")
    journal = read_journal(storage, find_segments(storage.list("journal")))
    assert journal == run.journal.read_bytes()
    assert storage.get("results.json") == run.results_file.read_bytes()
    weights = (run.best / "model.safetensors").read_bytes()
    assert storage.get("best/model.safetensors") == weights


def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_trained(
    search: Any, tmp_path: Path
) -> None:
    output = search("--run-dir", "refused", "--storage", "s3://missing/runs", code=2)
    assert "the bucket does not exist" in output
    assert not (tmp_path / "refused" / "run.json").exists()
