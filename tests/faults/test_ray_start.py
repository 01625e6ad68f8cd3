"""The whole way on nodes that ``ray start`` started, as a user starts them."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from gsfl_tune.run import EpochLog, RunDirectory, read_json
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import YAML
from tests.waiting import listens, wait_until

TRIALS, EPOCHS = 5, 500
SETTINGS = (
    f"search.trials={TRIALS}",
    f"training.head.epochs={EPOCHS}",
    "search.scheduler.name=none",
    "search.sampler.name=random",
    "search.finalists=1",
    "search.final_seeds=1",
    "search.control=off",
    # The workers of the cluster are still starting.
    "search.resources.wait=120",
)


class Started:
    """A head without slots and two workers with one each."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int | None) -> None:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        assert port is not None
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._environment = environment
        self._folder = folder
        self.nodes = [self._start("h", "--head", "--port", str(port), "--num-cpus", "0")]
        for name in ("a", "b"):
            self._wait(port)
            self.nodes.append(self._start(name, "--address", self.address, "--num-cpus", "1"))

    def kill(self, number: int) -> None:
        """``kill -9`` for a node and everything on it."""
        family = psutil.Process(self.nodes[number].pid).children(recursive=True)
        self.nodes[number].kill()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.nodes[number].wait()

    def close(self) -> None:
        for number in range(len(self.nodes)):
            if self.nodes[number].poll() is None:
                self.kill(number)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        common = ("--node-ip-address", "127.0.0.1", "--object-store-memory", str(80 * 2**20))
        with (self._folder / f"{name}.txt").open("wb") as output:
            return subprocess.Popen(
                [
                    # `ray start` that keeps to loopback.
                    *(
                        sys.executable,
                        "-m",
                        "gsfl_tune.cluster.session.loopback",
                        "start",
                        "--block",
                    ),
                    *("--dashboard-agent-listen-port", "0"),
                    *("--temp-dir", str(self._folder / name), *common, *arguments),
                ],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, port: int) -> None:
        log = self._folder / "h.txt"
        wait_until(lambda: listens(port), "the head listens", output=log.read_text)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {
        **known,
        "GSFL_TUNE_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def _started(environment: dict[str, str], port: int | None = None) -> Iterator[Started]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Started(Path(folder), environment, port)
        try:
            yield cluster
        finally:
            cluster.close()


@pytest.mark.slow
def test_a_search_that_loses_a_node_and_then_its_head(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    file = tmp_path / "tiny.yaml"
    file.write_text(YAML)
    output = tmp_path / "output.txt"
    drivers: list[subprocess.Popen[bytes]] = []

    def drive(cluster: Started, *arguments: str) -> subprocess.Popen[bytes]:
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        with output.open("wb") as sink:
            driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gsfl_tune", "search", str(file), "--run-dir"),
                    *(str(run.path), "--address", cluster.address, *settings, *arguments),
                ],
                env=environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        drivers.append(driver)
        return driver

    def complete() -> dict[int, float | None]:
        trials = read_studies(run.journal).get("search", [])
        assert not [trial for trial in trials if trial.state.name == "FAIL"]
        return {trial.number: trial.value for trial in trials if trial.state.name == "COMPLETE"}

    def epochs(number: int) -> int:
        return len(EpochLog(run.trial("search", number) / "epochs.jsonl").read())

    def wait(ready: Callable[[], bool], what: str) -> None:
        wait_until(ready, what, timeout=120, process=drivers[-1], output=output.read_text)

    with ExitStack() as stack:
        first = stack.enter_context(_started(environment))
        drive(first)
        wait(lambda: epochs(0) > 20 and epochs(1) > 20, "two trials are under way")
        first.kill(1)
        wait(
            lambda: len(complete()) >= 2 and epochs(len(complete())) > 20,
            "a trial after two complete ones is under way",
        )
        before = complete()
        assert len(before) < TRIALS
        first.kill(0)
        drivers[-1].kill()
        drivers[-1].wait()
        # The other worker of the first cluster, and a trial on it, live on for a while.
        second = stack.enter_context(_started(environment))
        driver = drive(second, "--resume")
        assert driver.wait(200) == 0, output.read_text()
    after = complete()
    assert len(after) == TRIALS
    assert {number: after[number] for number in before} == before
    for number in after:
        log = EpochLog(run.trial("search", number) / "epochs.jsonl").read()
        assert [record["epoch"] for record in log] == list(range(1, EPOCHS + 1))
    winner = min(after, key=lambda number: (after[number], number))
    assert read_json(run.results_file)["winner"]["trial"] == winner
    assert list(run.best.iterdir())


@pytest.mark.slow
def test_another_head_at_the_old_address_is_not_taken_for_the_first(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    file = tmp_path / "tiny.yaml"
    file.write_text(YAML)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    with ExitStack() as stack:
        first = stack.enter_context(_started(environment))
        output = stack.enter_context((tmp_path / "output.txt").open("w+"))
        driver = subprocess.Popen(
            [
                *(sys.executable, "-m", "gsfl_tune", "search", str(file), "--run-dir"),
                *(str(run.path), "--address", first.address, *settings),
            ],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        wait_until(
            EpochLog(run.trial("search", 0) / "epochs.jsonl").read,
            "a trial has trained",
            timeout=120,
            process=driver,
            output=(tmp_path / "output.txt").read_text,
        )
        first.kill(0)
        stack.enter_context(_started(environment, first.port))
        assert driver.wait(120) == 3
        output.seek(0)
        said = output.read()
    assert "a new head answers" in said or "has not answered" in said
    assert "--resume" in said
    assert "Traceback" not in said
