"""What tests of several packages and processes need, made once in a run of pytest."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Makes a folder in the first process that asks for it; the others wait.

    A session fixture is made anew for each conftest that imports it, and in each process of
    pytest-xdist.

    Args:
        factory: That of pytest.
        name: Of the folder.
        make: Fills the folder; nobody writes to it afterwards.
    """
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, whole = root / name, root / f"{name}.whole"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
