"""A time limit that ends the processes of trials which no longer answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.workers.trial_worker import too_long

# A trial that is only slow ends by itself at the end of an epoch, and its process is reused.
GRACE_SECONDS = 10.0
# Processes do not all retry at once when a storage answers again, see `Storage`.
_COMING_BACK_SECONDS = 30.0


@dataclass(frozen=True)
class _Running:
    trial: Any
    since: float
    until: float
    away: float


class Deadlines(tune.Callback):
    """Enforces ``search.trial_timeout`` from outside of the trials.

    Args:
        timeout: Seconds per trial; None disables it.
        searcher: Knows the earlier time of a trial, and records why it failed.
        away: Returns the seconds so far in which the run's storage has not answered: trials
            wait for it then through no fault of their own.
    """

    def __init__(
        self,
        timeout: float | None,
        searcher: StudySearcher,
        away: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._timeout = timeout
        self._searcher = searcher
        self._away = away
        self._running: dict[str, _Running] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Starts a deadline, also after a crash and in a reused process."""
        if self._timeout is not None:
            now = time.monotonic()
            left = self._timeout - self._searcher.seconds_before(trial.trial_id)
            until = now + max(0.0, left) + GRACE_SECONDS
            self._running[trial.trial_id] = _Running(trial, now, until, self._away())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Removes the deadline."""
        self._running.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Removes the deadline."""
        self._running.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Removes the deadline; the trial gets a new one when it starts again."""
        self._running.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Checks the deadlines; called some times a second whatever the trials do."""
        now, away = time.monotonic(), self._away()
        late = [each for each in self._running.values() if now >= each.until + _waits(each, away)]
        for each in late:
            del self._running[each.trial.trial_id]
            self._end(each, now)

    def _end(self, running: _Running, now: float) -> None:
        trial, actor = running.trial, running.trial.temporary_state.ray_actor
        if actor is None:
            return
        assert self._timeout is not None
        taken = now - running.since + self._searcher.seconds_before(trial.trial_id)
        self._searcher.condemn(
            trial.trial_id,
            f"{too_long(self._timeout)}: no answer after {taken:.0f} s, its process was ended",
        )
        ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles callbacks with its snapshot, which is never read.
        return {}


def _waits(running: _Running, away: float) -> float:
    """Returns the seconds that a trial may have waited for the storage."""
    waited = away - running.away
    return waited + _COMING_BACK_SECONDS if waited > 0 else 0.0
