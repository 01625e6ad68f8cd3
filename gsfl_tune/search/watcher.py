"""What wants to know how a search goes: progress display and trial table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partialmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.search.study import Study


class Watcher:
    """Is told of every change after the study has it. Does nothing unless overridden."""

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """A study begins, or goes on; without a `budget` of trials, for as long as it has time."""

    def expects(self, left: Callable[[], float]) -> None:
        """What begins next can say how many seconds are left of it."""

    def hears(self, states: Callable[[], Mapping[str, str]]) -> None:
        """Who knows what trials and retrains do now: words, by name (``trial 7``)."""

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """A trial was handed out; `again` when an earlier driver had begun it."""

    def rung(self, number: int, k: int, value: float) -> None:
        """A trial came to a rung."""

    def ended(self, number: int) -> None:
        """A trial is COMPLETE, PRUNED or FAIL."""

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """A trial or retrain used its slot for so long; `result` tells where, if it knows."""

    def notice(self, text: str) -> None:
        """Something that a user should read."""

    def tick(self) -> None:
        """Called some times a second while the search runs."""

    def finish(self, *, interrupted: bool) -> None:
        """The study ended or was interrupted."""

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Retrains begin; some may be done from an earlier driver."""

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """A retrain is done, or failed."""

    def jobs_finish(self, *, interrupted: bool) -> None:
        """The retrains ended or were interrupted."""


class Watchers(Watcher):
    """Several watchers as one: each is told of everything, in order."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def _tell(self, event: str, *args: Any, **options: Any) -> None:
        for watcher in self._watchers:
            getattr(watcher, event)(*args, **options)


# Signatures, for readers and type checkers, are those of `Watcher`.
for _event in [name for name in vars(Watcher) if not name.startswith("_")]:
    setattr(Watchers, _event, partialmethod(Watchers._tell, _event))
