"""Notices that the run directory is gone, and ends the search with a sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gsfl_tune.run import RunDirectory
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.finals.protocol import SearchFailed
from gsfl_tune.search.observers.base import Watcher

_LOOK_SECONDS = 1.0
# A network file system may lose sight of a directory for a moment.
_LOOKS = 3


class RunGone(SearchFailed):
    """The run directory was removed or renamed, or its file system is gone."""

    def __init__(self) -> None:
        super().__init__(
            "the run directory is gone (removed, renamed, or its disk is not mounted any more), "
            "and the search ends here; where it is there again, --resume continues it"
        )


def is_gone(run: RunDirectory) -> bool:
    """Whether the directory that a driver works in is not there any more.

    Whoever writes next may make the directory anew, but not the lock, which a driver makes once.
    """
    try:
        return not run.lock_file.exists()
    except OSError:
        return True


class Presence(Watcher):
    """Looks about once a second whether the run directory is there, and stops the run if not.

    Args:
        run: The run; its lock is held.
        interrupt: Of the run.
    """

    def __init__(self, run: RunDirectory, interrupt: Interrupt) -> None:
        self._run = run
        self._interrupt = interrupt
        self._looked = time.monotonic()
        self._missed = 0

    def tick(self) -> None:
        """Looks now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._missed = self._missed + 1 if is_gone(self._run) else 0
        if self._missed == _LOOKS:
            self._interrupt.give_up(str(RunGone()))


@contextmanager
def present(run: RunDirectory) -> Iterator[None]:
    """Puts whatever goes wrong once the run directory is gone into one sentence.

    Args:
        run: The run; its lock is held.

    Raises:
        RunGone: In place of it.
    """
    try:
        yield
    except Exception as error:
        if is_gone(run):
            raise RunGone from error
        raise
