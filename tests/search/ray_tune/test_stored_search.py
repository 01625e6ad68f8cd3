"""A search on S3: the server fails in every way, the driver and its disk are lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import psutil
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.storage import Storage, open_storage
from gsfl_tune.run.storage.journal_segments import find_segments, read_journal
from gsfl_tune.run.storage.retrying import WORTH_A_WORD
from gsfl_tune.search.study.journal import read_studies
from tests.s3 import S3Server, s3_server
from tests.search.experiments import experiment, searched, states
from tests.waiting import wait_until

TRIALS, EPOCHS = 8, 60
# Of a trial, in seconds.
TIMEOUT = 25
OVERRIDES = (
    f"search.trials={TRIALS}",
    f"training.head.epochs={EPOCHS}",
    "search.scheduler.grace=20",
    "search.sampler.name=random",
)
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def url(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"


class Driver:
    def __init__(
        self, run: RunDirectory, cache_dir: Path, url: str, *overrides: str, **variables: str
    ) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        command = [sys.executable, "-m", "tests.search.stored_driver", str(run.path)]
        self.process = subprocess.Popen(
            [*command, str(cache_dir), url, *OVERRIDES, *overrides],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, ready: Callable[[], Any], what: str) -> None:
        # Ray and its workers start slowly beside other work.
        try:
            wait_until(ready, what, timeout=400, process=self.process)
        except AssertionError:
            if self.process.poll() is None:
                self.kill()
            raise

    def kill(self) -> None:
        """The machine is gone: driver, Ray and workers at once."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in [psutil.Process(self.process.pid), *family]:
            process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self, code: int = 0) -> str:
        output, _ = self.process.communicate(timeout=400)
        assert self.process.returncode == code, output
        return output


def _finished(run: RunDirectory) -> dict[int, tuple[str, float | None]]:
    return {
        trial.number: (trial.state.name, trial.value)
        for trial in read_studies(run.journal).get("search", [])
        if trial.state.is_finished()
    }


def _in_storage(storage: Storage, folder: Path) -> dict[int, tuple[str, float | None]]:
    run = RunDirectory(folder)
    run.path.mkdir(exist_ok=True)
    run.journal.write_bytes(read_journal(storage, find_segments(storage.list("journal"))))
    return _finished(run)


@pytest.fixture(scope="module")
def undisturbed(
    ray_of_tests: None, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path
) -> list[tuple[int, str, dict[int, float]]]:
    """The same search in a directory, with one worker."""
    run = RunDirectory(tmp_path_factory.mktemp("path") / "run")
    slot = Slots(cpu=1, gpu=0, count=1)
    return states(searched(experiment(*OVERRIDES), run, resources=slot, cache_dir=cache_dir).study)


@pytest.mark.slow
def test_a_search_that_loses_its_machine_and_its_storage_for_a_while_ends_as_if_it_had_not(
    undisturbed: Any, server: S3Server, url: str, tmp_path: Path, cache_dir: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    storage = open_storage(f"{url}/tiny")
    driver = Driver(run, cache_dir, url)
    driver.wait_for(lambda: _in_storage(storage, tmp_path / "look"), "a trial is in the storage")
    driver.kill()
    known = _in_storage(storage, tmp_path / "look")
    shutil.rmtree(run.path)
    assert len(known) < TRIALS - 2

    # Another machine; the storage freezes, fails and refuses while it works.
    other = RunDirectory(tmp_path / "other")
    driver = Driver(other, cache_dir, url)
    driver.wait_for(lambda: len(_finished(other)) > len(known), "one more trial has finished")
    with server.frozen():
        driver.wait_for(server.unread, "a request hangs")
    for mood in ("500", "refuse"):
        answered = len(server.requests())
        driver.wait_for(lambda n=answered: len(server.requests()) > n, "the storage answers")  # type: ignore[misc]
        with server.feeling(mood):
            enough = time.time() + WORTH_A_WORD + 1
            driver.wait_for(lambda end=enough: server.last_failed() > end, "it fails for seconds")  # type: ignore[misc]
    output = driver.end()
    assert "brought back" in output
    assert "repeated" in output

    after = _finished(other)
    assert known.items() <= after.items()
    study = read_studies(other.journal)["search"]
    assert [(t.number, t.state.name, dict(t.intermediate_values)) for t in study] == undisturbed
    _agrees(other, storage, tmp_path)


def _agrees(run: RunDirectory, storage: Storage, folder: Path) -> None:
    """Study, table, storage and the files of the trials say the same."""
    after = _finished(run)
    assert _in_storage(storage, folder / "look") == after
    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    assert dict(table["state"]) == {number: state for number, (state, _) in after.items()}
    for number, (state, _) in after.items():
        log = EpochLog(run.trial("search", number) / "epochs.jsonl").read()
        assert [record["epoch"] for record in log] == list(range(1, len(log) + 1))
        assert table["epochs"][number] == len(log) > 0
        assert state != "COMPLETE" or len(log) == EPOCHS
    names = storage.list()
    assert "driver.json" not in names
    assert "interrupt" not in names
    checkpoints = {name for name in names if name.endswith("checkpoint.pt")}
    best = sorted(
        (value, number) for number, (state, value) in after.items() if state == "COMPLETE"
    )
    # What search.keep_checkpoints says, in the storage too.
    assert f"trials/{best[0][1]}/checkpoint.pt" in checkpoints
    assert checkpoints <= {f"trials/{number}/checkpoint.pt" for _, number in best}


@pytest.mark.slow
def test_a_storage_that_stays_away_ends_the_search_with_its_state_intact(
    server: S3Server, url: str, tmp_path: Path, cache_dir: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    driver = Driver(run, cache_dir, url, GSFL_TUNE_STORAGE_PATIENCE="3")
    driver.wait_for(lambda: run.journal.exists() and _finished(run), "a trial has finished")
    with server.feeling("500"):
        output = driver.end(2)
    assert "--resume" in output
    assert "Traceback" not in output
    before = _finished(run)
    Driver(run, cache_dir, url).end()
    assert before.items() <= _finished(run).items()
    assert len(_finished(run)) == TRIALS
    _agrees(run, open_storage(f"{url}/tiny"), tmp_path)


@pytest.mark.slow
def test_an_endpoint_frozen_for_half_a_minute_and_a_second_driver(
    server: S3Server, url: str, tmp_path: Path, cache_dir: Path, undisturbed: Any
) -> None:
    run = RunDirectory(tmp_path / "run")
    # A trial that waits for the storage does not use up its own time.
    driver = Driver(run, cache_dir, url, f"search.trial_timeout={TIMEOUT} s")
    storage = open_storage(f"{url}/tiny")
    driver.wait_for(lambda: storage.list(""), "the run is in the storage")
    # Beside the first one from its beginning: neither may wait for how fast the other is.
    second = Driver(RunDirectory(tmp_path / "second"), cache_dir, url)
    driver.wait_for(lambda: run.journal.exists() and _finished(run), "a trial has finished")
    with server.frozen():
        driver.wait_for(server.unread, "a request hangs")
        hangs = time.monotonic()
        # A trial waits for the storage for longer than `search.trial_timeout` lets it train.
        driver.wait_for(
            lambda: time.monotonic() - hangs > TIMEOUT and server.unread() > 1,
            "requests hang for longer than a trial may take",
        )
    assert "another search works on this run" in second.end(2)
    output = driver.end()
    assert "repeated" in output
    study = read_studies(run.journal)["search"]
    assert [(t.number, t.state.name, dict(t.intermediate_values)) for t in study] == undisturbed
    _agrees(run, open_storage(f"{url}/tiny"), tmp_path)
