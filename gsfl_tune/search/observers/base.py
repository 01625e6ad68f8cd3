"""The interface of watchers: objects that receive the events of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partialmethod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study
    from gsfl_tune.training.pricing import Measured


class Said(NamedTuple):
    """Holds the last report of a trial or retrain.

    Attributes:
        text: Its current step, in words.
        epochs: Trained epochs, with the fraction of the current one; None outside of epochs.
        rest: Seconds left of a step outside of epochs; None if unknown.
    """

    text: str
    epochs: float | None = None
    rest: float | None = None


States = Callable[[], Mapping[str, Said | None]]

# States of trials that have no slot any more; most paused ones never get another.
OVER = ("COMPLETE", "PRUNED", "FAIL", "PAUSED")


class Watcher:
    """Receives every change after the study has recorded it. Does nothing unless overridden."""

    def timed(self, found: Sequence[Measured]) -> None:
        """Called once with optimiser steps that were timed before the first trial."""

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Called when a study begins or continues; `budget` is None if only time limits it."""

    def expects(self, left: Callable[[], float]) -> None:
        """Receives a function that returns how many seconds are left of the next phase."""

    def hears(self, states: States) -> None:
        """Receives the states of trials and retrains by name (``trial 7``).

        A state is None before the first report.
        """

    def proposed(self, seconds: float) -> None:
        """Called when the study has proposed a trial, with the seconds that this took."""

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Called when a trial was handed out; `again` when an earlier driver had begun it."""

    def rung(self, number: int, k: int, value: float) -> None:
        """Called when a trial reached a rung."""

    def paused(self, number: int) -> None:
        """Called when a trial gives its slot back, and may be started again later."""

    def ended(self, number: int) -> None:
        """Called when a trial is COMPLETE, PRUNED or FAIL."""

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """Called with the seconds that a slot was used; `result` names the place if known."""

    def notice(self, text: str) -> None:
        """Receives a message for the user."""

    def tick(self) -> None:
        """Called some times a second while the search runs."""

    def finish(self, *, interrupted: bool) -> None:
        """Called when the study ended or was interrupted."""

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Called when retrains begin; an earlier driver may have done some."""

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """Called when a retrain is done or failed."""

    def jobs_finish(self, *, interrupted: bool) -> None:
        """Called when the retrains ended or were interrupted."""


class Watchers(Watcher):
    """Combines several watchers: each receives every event, in order."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def _tell(self, event: str, *args: Any, **options: Any) -> None:
        for watcher in self._watchers:
            getattr(watcher, event)(*args, **options)


# For readers and type checkers, the signatures are those of `Watcher`.
for _event in [name for name in vars(Watcher) if not name.startswith("_")]:
    setattr(Watchers, _event, partialmethod(Watchers._tell, _event))
