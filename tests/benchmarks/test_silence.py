"""What counts as a silence of a command, and where its log is kept."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def silence() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("silence")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_time_from_the_last_word_to_the_exit_is_a_silence(silence):
    heard = silence.Heard("pipe", [(0.5, "first\n"), (3.0, "a\nlast\n")], seconds=15.5)
    assert heard.gaps() == [
        (12.5, 3.0, "last", "exit"),
        (2.5, 0.5, "first", "a"),
        (0.5, 0.0, "start", "first"),
    ]
    assert silence.Heard("pipe", [], seconds=7.0).gaps() == [(7.0, 0.0, "start", "exit")]


def test_logs_are_kept_where_wanted(tmp_path):
    words = [sys.executable, "-c", "print('a word')"]
    options = ["--only", "pipe", "--keep", str(tmp_path / "keep"), "--logs", str(tmp_path / "logs")]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "silence.py"), *options, "--", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name.startswith("now-pipe-")
    assert "a word" in log.read_text()
    assert "(exit 0)" in log.read_text().splitlines()[-1]
