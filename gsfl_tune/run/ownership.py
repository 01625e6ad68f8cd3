"""Keeps a process that was given up for dead from writing where another one goes on."""

from __future__ import annotations

import secrets
from pathlib import Path

from gsfl_tune.run.atomic import write_text


class OwnershipLost(Exception):
    """Another process works in this directory now; what this one has is not wanted."""


class Ownership:
    """Which process works in a directory: the one that said so last.

    A node that the cluster lost sight of may still train, and so may the trials of a driver
    that was killed, for a minute: whoever takes a trial up again must not share its files
    with them.

    Args:
        directory: The trial's; ``.owner`` in it names the owner.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / ".owner"
        self._name = secrets.token_hex(8)

    def take(self) -> None:
        """Takes the directory, from whoever has it."""
        write_text(self._file, self._name)

    def check(self) -> None:
        """Before every write.

        Raises:
            OwnershipLost: When somebody else has taken the directory.
            OSError: When it cannot be read, or is gone.
        """
        if self._file.read_text() != self._name:
            raise OwnershipLost(f"{self._file.parent}: taken over by another process")
