"""How long trials have to save."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gsfl_tune.activity import current
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt

VARIABLES = ("GSFL_TUNE_STOP_SECONDS", "RAY_JOB_STOP_WAIT_TIME_S")


@pytest.mark.parametrize(
    ("variables", "least", "most"),
    [
        ({}, 5, 10),
        ({"RAY_JOB_STOP_WAIT_TIME_S": "120"}, 60, 110),
        ({"RAY_JOB_STOP_WAIT_TIME_S": "120", "GSFL_TUNE_STOP_SECONDS": "60"}, 30, 55),
        # Ray's default leaves no time; a second signal comes sooner than SIGKILL would.
        ({"RAY_JOB_STOP_WAIT_TIME_S": "3"}, 5, 10),
        ({"GSFL_TUNE_STOP_SECONDS": "soon"}, 5, 10),
    ],
)
def test_trials_get_most_of_what_a_scheduler_leaves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    least: float,
    most: float,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    interrupt = Interrupt(RunDirectory(tmp_path / "run"))
    interrupt.request()
    now = time.monotonic()
    with monkeypatch.context() as later:
        later.setattr(time, "monotonic", lambda: now + least)
        assert not interrupt.overdue
        later.setattr(time, "monotonic", lambda: now + most)
        assert interrupt.overdue


def test_a_budget_that_is_spent_waits_no_longer_than_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSFL_TUNE_STOP_SECONDS", "600")
    interrupt = Interrupt(RunDirectory(tmp_path / "run"))
    interrupt.end_trials()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 10)
    assert interrupt.overdue
    assert not interrupt.requested


PRESSED_TWICE = """
import signal, sys
from gsfl_tune.activity import current
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt

interrupt = Interrupt(RunDirectory(sys.argv[1]), grace=8)
with interrupt.listening():
    assert current() is None
    for _ in range(2):
        signal.raise_signal(signal.SIGINT)
        print(current().urgent, current().text())
assert current() is None
"""


def test_ctrl_c_says_at_once_what_is_waited_for(tmp_path: Path) -> None:
    # In a process of its own: what earlier tests have loaded here may listen to signals too.
    said = subprocess.run(
        [sys.executable, "-c", PRESSED_TWICE, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stderr == ""
    first, second = said.stdout.splitlines()
    assert re.fullmatch(r"True asked to stop: .* save first, .* [78] s more", first)
    assert "ending trials that have not saved" in second


def test_a_limit_says_what_is_waited_for_until_the_run_goes_on(tmp_path: Path) -> None:
    interrupt = Interrupt(RunDirectory(tmp_path / "run"))
    with interrupt.listening():
        interrupt.end_trials()
        one = current()
        assert one is not None
        assert one.text().startswith("the search is over: ")
        interrupt.reopen()
        assert current() is None
