"""A watch on the run directory that ends the search with a clear message if it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gsfl_tune.run import RunDirectory
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.finals.protocol import SearchFailed
from gsfl_tune.search.observers.base import Watcher

_LOOK_SECONDS = 1.0
# A network file system may hide a directory for a moment.
_LOOKS = 3


class RunGone(SearchFailed):
    """Raised when the run directory was removed or renamed, or its file system is gone."""

    def __init__(self) -> None:
        super().__init__(
            "the run directory is gone (removed, renamed, or its disk is not mounted any more), "
            "and the search ends here; once it is back, --resume continues the search"
        )


def is_gone(run: RunDirectory) -> bool:
    """Returns whether the directory of the driver is gone.

    A later write may create the directory again, but not the lock, which a driver creates once.
    """
    try:
        return not run.lock_file.exists()
    except OSError:
        return True


class Presence(Watcher):
    """Checks about once a second that the run directory exists, and stops the run if not.

    Args:
        run: The run; its lock is held.
        interrupt: Interrupt of the run.
    """

    def __init__(self, run: RunDirectory, interrupt: Interrupt) -> None:
        self._run = run
        self._interrupt = interrupt
        self._looked = time.monotonic()
        self._missed = 0

    def tick(self) -> None:
        """Checks now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._missed = self._missed + 1 if is_gone(self._run) else 0
        if self._missed == _LOOKS:
            self._interrupt.give_up(str(RunGone()))


@contextmanager
def present(run: RunDirectory) -> Iterator[None]:
    """Replaces any error after the loss of the run directory by one clear message.

    Args:
        run: The run; its lock is held.

    Raises:
        RunGone: In place of the original error.
    """
    try:
        yield
    except Exception as error:
        if is_gone(run):
            raise RunGone from error
        raise
