"""What becomes of a driver whose head goes away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gsfl_tune.cluster import ray_session
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt
from gsfl_tune.search.ray_tune import head_watchdog
from gsfl_tune.search.ray_tune.head_watchdog import lifeline


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "[127.0.0.1]:{}"])
def test_a_head_answers_while_something_listens_there(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address.format(server.getsockname()[1])
        assert head_watchdog._answers(address)
    assert not head_watchdog._answers(address)


def test_the_watch_of_a_head_that_answers_ends_with_its_block(
    ray_of_tests: None, run: RunDirectory
) -> None:
    said: list[str] = []
    interrupt = Interrupt(run)
    with lifeline(interrupt, said.append, patience=0.0):
        [watch] = [each for each in threading.enumerate() if each.name == "lifeline"]
        watch.join(2 * head_watchdog._POLL_SECONDS)
        assert watch.is_alive()
    watch.join(2 * head_watchdog._POLL_SECONDS)
    assert not watch.is_alive()
    assert said == []
    assert not interrupt.stopping


@pytest.mark.slow
def test_a_driver_whose_head_is_killed_ends_with_a_message_and_can_be_resumed(
    tmp_path: Path,
) -> None:
    run = RunDirectory(tmp_path / "run")
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.search.ray_tune.test_head_watchdog", str(run.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "watched\n"
    for child in psutil.Process(driver.pid).children(recursive=True):
        if child.name() == "gcs_server":
            child.kill()
    _, error = driver.communicate(timeout=120)
    assert driver.returncode == 3, error
    assert "has not answered for 1 s" in error
    assert "continue with --resume" in error
    assert run.interrupt_file.exists()


def main(path: str) -> None:
    run = RunDirectory(path)
    run.path.mkdir(parents=True)
    with ray_session(cpus=1), lifeline(Interrupt(run, grace=0.1), lambda text: None, patience=1.0):
        print("watched", flush=True)
        # A call of Ray that hangs without a head, for all that the watch knows.
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
