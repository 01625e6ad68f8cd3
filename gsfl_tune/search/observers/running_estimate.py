"""Writes the estimate of the time left into the run directory, for `watch` and `runs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gsfl_tune.run import RunDirectory
from gsfl_tune.run.running_estimate import RunningEstimate
from gsfl_tune.search.observers.base import OVER, Watcher

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

SECONDS_BETWEEN_WRITES = 5.0


class EstimateFile(Watcher):
    """Keeps the running estimate of a run in its file.

    Args:
        run: The run directory.
        seconds: Seconds between two writes.
    """

    def __init__(self, run: RunDirectory, seconds: float = SECONDS_BETWEEN_WRITES) -> None:
        self._run = run
        self._seconds = seconds
        self._left: Callable[[], float] | None = None
        self._study: Study | None = None
        self._phase = ""
        self._done = 0
        self._total: int | None = None
        self._written = -seconds

    def expects(self, left: Callable[[], float]) -> None:
        """Stores the source of the remaining time."""
        self._left = left

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Writes that a study begins or goes on."""
        self._study, self._phase, self._total = study, study.name, budget
        self._count()
        self._write()

    def paused(self, number: int) -> None:
        """Counts a trial that may be over."""
        self._count()

    def ended(self, number: int) -> None:
        """Counts a trial."""
        self._count()

    def tick(self) -> None:
        """Writes now and then."""
        if self._phase and time.monotonic() - self._written >= self._seconds:
            self._write()

    def finish(self, *, interrupted: bool) -> None:
        """Writes the last estimate of the study."""
        self._write()
        self._study = self._left = None

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Writes that trainings begin."""
        self._phase, self._total, self._done = title, total, done
        self._write()

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """Counts a training."""
        self._done += 1

    def jobs_finish(self, *, interrupted: bool) -> None:
        """Writes the last estimate, from which the evidence counts down."""
        self._write()
        self._left = None

    def _count(self) -> None:
        if self._study is not None:
            counts = self._study.states()
            self._done = sum(counts.get(state, 0) for state in OVER)

    def _write(self) -> None:
        self._written = time.monotonic()
        seconds = None if self._left is None else float(self._left())
        estimate = RunningEstimate(self._phase, self._done, self._total, seconds, time.time())
        if not self._run.path.is_dir():
            return  # it is gone, and must not come back
        # A search does not end because nobody can be told how long it takes.
        with suppress(OSError, ValueError):
            estimate.write(self._run)
