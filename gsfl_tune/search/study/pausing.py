"""Trials that wait at a rung: stopped for now, and continued if later trials do worse."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gsfl_tune.search.samplers.history import PAUSED, PAUSED_AT
from gsfl_tune.search.study.reading import StudyReading

if TYPE_CHECKING:
    from gsfl_tune.search.study.journal import BatchingBackend


class Pausing(StudyReading):
    """Lets trials of a study wait.

    Optuna has no such state. A paused trial is RUNNING, and its user attribute names the rung, so
    a driver that resumes the run finds it. Samplers see it as a trial that was stopped there.
    """

    _journal: BatchingBackend
    _paused: dict[int, int]

    def paused(self) -> Mapping[int, int]:
        """Returns the rungs at which trials wait, by number."""
        return self._paused

    def states(self) -> dict[str, int]:
        """Counts trials as `counts` does, with PAUSED ones apart from RUNNING ones."""
        counts, paused = self.counts(), len(self._paused)
        return counts | {"RUNNING": counts["RUNNING"] - paused, "PAUSED": paused}

    def pause(
        self, number: int, value: float, k: int, others: Mapping[str, float] | None = None
    ) -> None:
        """Records that a trial waits at rung `k`; it can be handed out again."""
        if self.trial(number).state.is_finished():
            return
        with self._journal.batch():
            self.report(number, k, value, others)
            self.note(number, PAUSED, k)
            self.note(number, PAUSED_AT, time.time())
        self._paused[number] = k

    def worst_paused(self) -> int | None:
        """Returns the trial that waits at the earliest rung, and is the worst one there."""
        sign = 1.0 if self.direction == "maximize" else -1.0
        found = [
            (k, sign * self.rungs(self.trial(number))[k], number)
            for number, k in self._paused.items()
        ]
        return min(found)[2] if found else None

    def prune_paused(self, only: int | None = None) -> list[int]:
        """Records paused trials as PRUNED; returns their numbers.

        Args:
            only: One of them; default: all.
        """
        numbers = sorted(self._paused) if only is None else [only]
        for number in numbers:
            del self._paused[number]
            with self._journal.batch():
                self._tell_last(number)
        return numbers

    def _find_paused(self) -> None:
        """Reads which trials an earlier driver has paused."""
        attributes = {number: self.trial(number).user_attrs for number in self.running()}
        self._paused = {
            number: int(found[PAUSED])
            for number, found in attributes.items()
            if found.get(PAUSED) is not None
        }

    def _unpause(self, number: int) -> None:
        """Records that a trial is handed out again; does nothing to others."""
        if self._paused.pop(number, None) is not None:
            self.note(number, PAUSED, None)

    def report(
        self, number: int, k: int, value: float, others: Mapping[str, float] | None = None
    ) -> None:
        """Stores the objective at a rung."""
        raise NotImplementedError

    def note(self, number: int, key: str, value: Any) -> None:
        """Stores additional information on a trial."""
        raise NotImplementedError

    def _tell_last(self, number: int) -> None:
        raise NotImplementedError
