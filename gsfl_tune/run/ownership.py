"""Ownership of a directory: a process believed dead must not write where another one goes on."""

from __future__ import annotations

import secrets
from pathlib import Path

from gsfl_tune.run.atomic import write_text


class OwnershipLost(Exception):
    """Raised when another process works in this directory; the results of this one are dropped."""


class Ownership:
    """Names the process that works in a directory: the last one that took it.

    A node that the cluster lost may still train for a while, and so may trials of a killed driver.
    The process that resumes such a trial must not share its files with them.

    Args:
        directory: The trial's; ``.owner`` in it names the owner.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / ".owner"
        self._name = secrets.token_hex(8)

    def take(self) -> None:
        """Takes the directory from its present owner."""
        write_text(self._file, self._name)

    def check(self) -> None:
        """Checks that this process is still the owner; called before every write.

        Raises:
            OwnershipLost: When somebody else has taken the directory.
            OSError: When it cannot be read, or is gone.
        """
        if self._file.read_text() != self._name:
            raise OwnershipLost(f"{self._file.parent}: taken over by another process")
