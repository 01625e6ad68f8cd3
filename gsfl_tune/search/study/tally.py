"""Running counts of trials by state and the best trial, so that no event has to recount."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from optuna.trial import FrozenTrial, TrialState


class Tally:
    """Counts the trials of one study.

    Args:
        key: Sorts COMPLETE trials, the best first.

    Attributes:
        waiting: Numbers of the WAITING trials, oldest first.
        best: The best COMPLETE trial.
    """

    def __init__(self, key: Callable[[FrozenTrial], Any]) -> None:
        self._key = key
        self._states: list[TrialState] = []
        self._counts: Counter[TrialState] = Counter()
        self.waiting: list[int] = []
        self.best: FrozenTrial | None = None

    def __len__(self) -> int:
        return len(self._states)

    def note(self, trial: FrozenTrial) -> None:
        """Registers the next trial, or a trial's new state."""
        number, state = trial.number, trial.state
        if number == len(self._states):
            self._states.append(state)
        else:
            before = self._states[number]
            self._states[number] = state
            self._counts[before] -= 1
            if before == TrialState.WAITING:
                self.waiting.remove(number)
        self._counts[state] += 1
        if state == TrialState.WAITING:
            self.waiting.append(number)
        if state == TrialState.COMPLETE and (
            self.best is None or self._key(trial) < self._key(self.best)
        ):
            self.best = trial

    def running(self) -> list[int]:
        """Returns the numbers of the running trials, oldest first."""
        return [n for n, state in enumerate(self._states) if state == TrialState.RUNNING]

    def count(self, state: TrialState) -> int:
        """Returns the number of trials in a state."""
        return self._counts[state]
