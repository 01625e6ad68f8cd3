"""The end of a process: nothing is waited for that nobody needs, and what is waited for is said."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from rich.console import Console

from gsfl_tune.activity import display
from gsfl_tune.cluster import ray_session
from gsfl_tune.cluster.session import start
from gsfl_tune.search import Progress
from tests.waiting import wait_until

# What a library keeps is freed, and its callback is called, when Python ends.
PROGRAM = """\
import atexit, os, runpy
from gsfl_tune import cli
class Kept:
    def __del__(self, write=os.write):
        write(2, b"freed\\n")
kept, main = Kept(), cli.main
def with_library():
    atexit.register(print, "called at exit")
    return main()
cli.main = with_library
runpy.run_module("gsfl_tune", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["runs", "."], 0), (["results", "nowhere"], 2), (["--nonsense"], 2)],
    ids=["finished", "bad-input", "bad-argument"],
)
def test_a_process_ends_without_freeing_its_objects(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
    )
    assert done.returncode == code
    assert done.stdout.endswith("called at exit\n")
    assert done.stderr if code else len(done.stdout.splitlines()) > 1
    # A wrong argument ends before anything was loaded.
    assert ("freed" in done.stderr) is (arguments == ["--nonsense"])


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_the_end_of_ray_is_said_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(start, "start_ray", lambda *arguments, **options: True)
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=terminal, color_system=None)

    def slow() -> None:
        wait_until(lambda: "ending Ray" in output.getvalue(), "the end of Ray is shown")

    monkeypatch.setattr(ray, "shutdown", slow)
    with Progress(console), ray_session():
        pass
    assert "ending Ray" in output.getvalue()
