"""What becomes of a driver whose head goes away, on a socket that stands for a head."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt
from gsfl_tune.search.ray_tune import head_watchdog
from gsfl_tune.search.ray_tune.head_watchdog import lifeline
from tests.waiting import wait_until

NEVER = 3600.0


class Head:
    """Answers at an address, until it does not."""

    def __init__(self) -> None:
        self.port = 0
        self.session = b"first"
        self.rise()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def rise(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.port = self._socket.getsockname()[1]

    def fall(self) -> None:
        self._socket.close()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    one = Head()
    _connected(one, monkeypatch.setattr)
    # Of a search that another test has run, a watch may be left for a moment.
    wait_until(lambda: not _watches(), "no other head is watched")
    yield one
    one.fall()
    wait_until(lambda: not _watches(), "the watch has ended with its block")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes with which this process would have been ended."""
    codes: list[int] = []
    monkeypatch.setattr(head_watchdog, "os", SimpleNamespace(_exit=codes.append))
    return codes


def _connected(head: Head, change: Callable[[object, str, object], None]) -> None:
    """Makes this process one that is connected to the head, and a watch quick."""
    context = SimpleNamespace(gcs_address=head.address)
    change(ray, "get_runtime_context", lambda: context)
    change(head_watchdog, "_session", lambda address: head.session)
    for name in ("_POLL_SECONDS", "_AWAY_SECONDS", "_EXIT_SECONDS"):
        change(head_watchdog, name, 0.02)


def _looked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Returns the answers that the watch gets, as it gets them."""
    answers: list[bool] = []
    ask = head_watchdog._answers

    def noted(address: str) -> bool:
        answers.append(ask(address))
        return answers[-1]

    monkeypatch.setattr(head_watchdog, "_answers", noted)
    return answers


def _watches() -> bool:
    return any(thread.name == "lifeline" for thread in threading.enumerate())


def test_a_head_that_answers_or_comes_back_in_time_ends_nothing(
    head: Head, run: RunDirectory, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    interrupt = Interrupt(run)
    answers = _looked(monkeypatch)
    with lifeline(interrupt, said.append, patience=NEVER):
        wait_until(lambda: len(answers) > 3, "the head was asked")
        head.fall()
        wait_until(lambda: not answers[-1], "it is away")
        head.rise()
        wait_until(lambda: all(answers[-3:]), "it is back, with the session that it had")
    wait_until(lambda: not _watches(), "the watch has ended with its block")
    assert (said, ended) == ([], [])
    assert not interrupt.stopping


def test_another_head_at_the_address_ends_the_driver_at_once(
    head: Head, run: RunDirectory, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    answers = _looked(monkeypatch)
    with lifeline(Interrupt(run), said.append, patience=NEVER):
        head.fall()
        wait_until(lambda: not answers[-1], "it is away")
        head.session = b"second"
        head.rise()
        wait_until(lambda: ended, "the driver is ended")
    assert ended == [3]
    assert f"a new head answers at the address of the cluster ({head.address})" in said[0]
    assert "--resume" in said[0]


def test_an_address_that_cannot_be_reached_is_not_watched(
    head: Head, run: RunDirectory, ended: list[int]
) -> None:
    head.fall()
    interrupt = Interrupt(run)
    with lifeline(interrupt, print, patience=0.0):
        assert not _watches()
    assert not interrupt.stopping


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "[127.0.0.1]:{}"])
def test_a_head_answers_while_something_listens_there(head: Head, address: str) -> None:
    address = address.format(head.port)
    assert head_watchdog._answers(address)
    head.fall()
    assert not head_watchdog._answers(address)


def test_a_lost_head_interrupts_the_run_and_ends_a_driver_that_hangs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.ray_tune.test_head_watchdog", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "has not answered for 0.1 s" in done.stderr
    assert "continue with --resume" in done.stderr
    assert done.stdout == "the run is to stop\n"
    assert RunDirectory(tmp_path / "run").interrupt_file.exists()


class Telling(Interrupt):
    def request(self) -> None:
        print("the run is to stop")
        super().request()


def main(path: str) -> None:
    head = Head()
    _connected(head, setattr)
    interrupt = Telling(RunDirectory(path), grace=0.1)
    with lifeline(interrupt, lambda text: None, patience=0.1):
        head.fall()
        # Stands for a call of Ray that hangs without a head.
        threading.Event().wait(NEVER)


if __name__ == "__main__":
    main(*sys.argv[1:])
