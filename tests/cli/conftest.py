"""The commands on real files: a bundle, images, and runs in several states."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests import warm
from tests.export.conftest import (
    bundle_path,
    cache_dir,
    config,
    images,
    network,
    trained_run,
)
from tests.report.conftest import begun, finished, under_way

__all__ = [
    "begun",
    "bundle_path",
    "cache_dir",
    "config",
    "finished",
    "images",
    "network",
    "trained_run",
    "under_way",
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys) -> Callable[..., Answer]:
    """Runs ``gsfl-tune ARGUMENTS`` in this process."""
    from gsfl_tune.cli import main

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


_STOPPED = """
import signal, sys
from importlib import import_module
kind = getattr(import_module(sys.argv[1]), sys.argv[2])
run = kind.run_epoch

def asked(self):
    if self.epoch == 1:
        signal.raise_signal(signal.SIGTERM)
    return run(self)

kind.run_epoch = asked
from gsfl_tune.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def stopped() -> Callable[..., Answer]:
    """Runs ``gsfl-tune ARGUMENTS`` as a process that gets SIGTERM in the second epoch.

    In the process of the tests a signal may end all of them.
    """

    def run(kind: type, *arguments: object) -> Answer:
        words = [kind.__module__, kind.__qualname__, *map(str, arguments)]
        done = warm.run(words, code=_STOPPED, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def process() -> Callable[..., Answer]:
    """Runs ``gsfl-tune ARGUMENTS`` as a process of its own."""

    def run(*arguments: object) -> Answer:
        done = warm.run(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
