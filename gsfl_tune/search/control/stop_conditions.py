"""Limits that end a search before all trials are done: time and a target value."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.experiment.units import duration_text, seconds
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.samplers.history import TIME_OVER
from gsfl_tune.search.study.study import Study


class Clock(Protocol):
    """Measures the time of a study, see `gsfl_tune.run.manifest.Clock`."""

    @property
    def seconds(self) -> float:
        """Returns the seconds, earlier drivers included."""
        ...


class Stopwatch:
    """Measures time from now and saves nothing."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self._started


class Limits:
    """Watches ``search.time_budget`` and ``search.target`` of one study.

    Args:
        search: The section `search`.
        study: The study.
        clock: Time that the study has taken.
        interrupt: Stops running trials.
        time_up: Returns why the time for trials is over, or None; default: when the study
            has taken ``search.time_budget``.
        span: The time budget of the run and the study's share of it. If an earlier driver ended the
            study for the same two, no further trial begins: prices may have changed, and it would
            take time from the finals.

    Attributes:
        reason: Why the study ended, None while it may continue.
    """

    def __init__(
        self,
        search: SearchConfig,
        study: Study,
        clock: Clock,
        interrupt: Interrupt,
        time_up: Callable[[], str | None] | None = None,
        span: Sequence[float] | None = None,
    ) -> None:
        self._time_up = time_up or self._time
        self._search = search
        self._study = study
        self._clock = clock
        self._interrupt = interrupt
        self._span = span
        self._timed = False
        self._before: str | None = None
        if span is not None and study.attributes.get(TIME_OVER) == list(span):
            self._before = "search.time_budget: the time for trials was over before this resume"
        self.reason: str | None = None

    def look(self) -> None:
        """Stops the running trials when a limit is reached; called some times a second."""
        if self.reason is None:
            self.reason = self._target()
            if self.reason is None:
                self.reason = self._before or self._time_up()
                self._timed = self.reason is not None
            if self.reason is not None:
                self._interrupt.end_trials()

    def settle(self) -> list[int]:
        """Records running trials as stopped, so that no resume continues them.

        Returns:
            Numbers of the trials that were stopped.
        """
        if self.reason is None:
            return []
        if self._timed and self._span is not None:
            self._study.remember(TIME_OVER, list(self._span))
        running = self._study.running()
        for number in running:
            self._study.cut(number, self.reason)
        self._interrupt.reopen()
        return running

    def _time(self) -> str | None:
        budget = self._search.time_budget
        if budget is None or self._clock.seconds < seconds(budget):
            return None
        return f"search.time_budget of {duration_text(budget)} is used up"

    def _target(self) -> str | None:
        target, best = self._search.target, self._study.best()
        value = None if best is None else self._study.value(best)
        if target is None or best is None or value is None:
            return None
        sign = 1.0 if self._study.direction == "maximize" else -1.0
        if sign * value < sign * target:
            return None
        return f"search.target of {target:g} is reached by trial {best.number} ({value:.4f})"
