"""What wants to know how a search goes: progress display and trial table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.search.study import Study


class Watcher:
    """Is told of every change after the study has it. Does nothing unless overridden."""

    def begin(self, study: Study, budget: int, slots: int) -> None:
        """A study begins, or goes on."""

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """A trial was handed out; `again` when an earlier driver had begun it."""

    def rung(self, number: int, k: int, value: float) -> None:
        """A trial came to a rung."""

    def ended(self, number: int) -> None:
        """A trial is COMPLETE, PRUNED or FAIL."""

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
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def begin(self, study: Study, budget: int, slots: int) -> None:
        """A study begins, or goes on."""
        for watcher in self._watchers:
            watcher.begin(study, budget, slots)

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """A trial was handed out."""
        for watcher in self._watchers:
            watcher.started(number, params, again=again)

    def rung(self, number: int, k: int, value: float) -> None:
        """A trial came to a rung."""
        for watcher in self._watchers:
            watcher.rung(number, k, value)

    def ended(self, number: int) -> None:
        """A trial is COMPLETE, PRUNED or FAIL."""
        for watcher in self._watchers:
            watcher.ended(number)

    def notice(self, text: str) -> None:
        """Something that a user should read."""
        for watcher in self._watchers:
            watcher.notice(text)

    def tick(self) -> None:
        """Called some times a second."""
        for watcher in self._watchers:
            watcher.tick()

    def finish(self, *, interrupted: bool) -> None:
        """The study ended or was interrupted."""
        for watcher in self._watchers:
            watcher.finish(interrupted=interrupted)

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Retrains begin."""
        for watcher in self._watchers:
            watcher.jobs_begin(title, total, done)

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """A retrain is done, or failed."""
        for watcher in self._watchers:
            watcher.job_ended(name, result)

    def jobs_finish(self, *, interrupted: bool) -> None:
        """The retrains ended or were interrupted."""
        for watcher in self._watchers:
            watcher.jobs_finish(interrupted=interrupted)
