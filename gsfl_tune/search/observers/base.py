"""What wants to know how a search goes: progress display and trial table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partialmethod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study


class Said(NamedTuple):
    """What a trial or retrain said last.

    Attributes:
        text: What it does, in words.
        epochs: That are trained, with the share of the one that is under way; None outside of
            epochs.
        rest: Seconds that are left of what it does outside of epochs; None where it cannot know.
    """

    text: str
    epochs: float | None = None
    rest: float | None = None


States = Callable[[], Mapping[str, Said | None]]


class Watcher:
    """Is told of every change after the study has it. Does nothing unless overridden."""

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """A study begins, or goes on; without a `budget` of trials, for as long as it has time."""

    def expects(self, left: Callable[[], float]) -> None:
        """What begins next can say how many seconds are left of it."""

    def hears(self, states: States) -> None:
        """Who knows what trials and retrains do now, by name (``trial 7``).

        None for one that has said nothing yet.
        """

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
