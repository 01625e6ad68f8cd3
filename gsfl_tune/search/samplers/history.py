"""The finished and running trials of a study as TPE needs them, each looked at once."""

from __future__ import annotations

import copy
from bisect import insort
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# Of a bounded history, those that are kept for being the best: more than the 25 that TPE would
# ever take.
BEST = 50
# User attribute of a trial that is none of the space since that was changed: what it was and came
# to, see `gsfl_tune.search.opening.change_space`.
OUTSIDE = "outside"


class SeenTrial:
    """A trial as TPE needs it; Optuna's own looks up every attribute in several dictionaries.

    Args:
        trial: The trial.
        sign: -1 where larger values are better, else 1.
    """

    __slots__ = (
        "constraints", "distributions", "intermediate_values", "names", "number", "params",
        "rank", "state", "system_attrs", "value", "values",
    )  # fmt: skip

    def __init__(self, trial: FrozenTrial, sign: float) -> None:
        self.number = trial.number
        self.state = trial.state
        self.values = trial.values
        self.value = trial.values[0] if trial.values else None
        self.params = trial.params
        self.distributions = trial.distributions
        self.intermediate_values = trial.intermediate_values
        self.names = frozenset(trial.distributions)
        # A trial is written with all its parameters at once: nothing else is to be known of it.
        self.system_attrs: dict[str, Any] = {}
        self.constraints: dict[str, float] = {}
        self.rank = (*_rank(trial, sign), trial.number)


class SeenTrials:
    """The trials of one study, each looked at until it is finished and not again.

    Attributes:
        shapes: The first finished trial of each set of parameters.
        whole: All parameters of finished trials by number, for `samplers.observations`.
    """

    def __init__(self) -> None:
        self._trials: dict[int, SeenTrial] = {}
        self._numbers: list[int] = []
        self._ranked: list[SeenTrial] = []
        self._open: set[int] = set()
        self._running: dict[int, SeenTrial] = {}
        self._looked = 0
        # Parameters as numbers, a row a trial and a column a parameter; NaN: not active.
        self._columns: dict[str, int] = {}
        self._table = np.full((256, 0), np.nan)
        self.shapes: dict[frozenset[str], SeenTrial] = {}
        self.whole: dict[int, dict[str, Any]] = {}

    def look(self, study: Any, number: int) -> list[SeenTrial]:
        """Takes in what has happened.

        Args:
            study: The study.
            number: The trial that is being proposed, which does not count.

        Returns:
            Running trials, by number.
        """
        trials = study.get_trials(deepcopy=False)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        self._open.update(range(self._looked, len(trials)))
        self._looked = len(trials)
        running = []
        for each in sorted(self._open):
            trial = trials[each]
            if trial.state == TrialState.RUNNING and each != number:
                running.append(self._see_running(trial, sign))
            elif trial.state.is_finished():
                self._open.remove(each)
                self._running.pop(each, None)
                if trial.state != TrialState.FAIL:
                    self._add(SeenTrial(trial, sign))
                elif (earlier := _of_another_space(trial)) is not None:
                    self._add(SeenTrial(earlier, sign), shaping=False)
        return running

    def internal(self, trials: Sequence[SeenTrial], names: Sequence[str]) -> np.ndarray:
        """Parameters as numbers.

        Args:
            trials: N trials that were looked at.
            names: P parameters.

        Returns:
            (n, P), a row for each of the trials that has all of them.
        """
        if any(name not in self._columns for name in names):
            return np.empty((0, len(names)))
        numbers = np.fromiter((trial.number for trial in trials), dtype=np.intp, count=len(trials))
        rows = self._table[numbers][:, [self._columns[name] for name in names]]
        found: np.ndarray = rows[~np.isnan(rows).any(axis=1)]
        return found

    def column(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """(n,) values of a parameter as numbers, of those of the trials `numbers` that have it."""
        column = self._columns.get(name)
        if column is None:
            return np.empty(0)
        values = self._table[numbers, column]
        found: np.ndarray = values[~np.isnan(values)]
        return found

    def best(self, count: int) -> list[SeenTrial]:
        """The best finished trials, best first."""
        return self._ranked[:count]

    def history(self, most: int) -> list[SeenTrial]:
        """Finished trials by number; of too many the best, the newest, and some of all times.

        The best and the newest alone are good: the worse of them would stand for what is bad,
        and TPE would look for better ones where everything is worse.
        """
        if len(self._numbers) <= most:
            return [self._trials[number] for number in self._numbers]
        best = {trial.number for trial in self.best(min(BEST, most // 3))}
        kept = thinned(self._numbers, most, best=best, newest=(most - len(best)) // 2)
        return [self._trials[number] for number in sorted(kept)]

    def _see_running(self, trial: FrozenTrial, sign: float) -> SeenTrial:
        """A running trial has nothing that changes and that TPE looks at, but that one whose
        driver was killed in the middle of a write gets the rest of its parameters.
        """
        seen = self._running.get(trial.number)
        if seen is None or len(seen.names) != len(trial.distributions):
            seen = self._running[trial.number] = SeenTrial(trial, sign)
            self._note(seen)
        return seen

    def _note(self, trial: SeenTrial) -> None:
        for name in trial.names - self._columns.keys():
            self._columns[name] = len(self._columns)
        rows, columns = self._table.shape
        if trial.number >= rows or len(self._columns) > columns:
            size = (max(rows, 2 * trial.number), len(self._columns))
            table = np.full(size, np.nan)
            table[:rows, :columns] = self._table
            self._table = table
        for name, distribution in trial.distributions.items():
            value = distribution.to_internal_repr(trial.params[name])
            self._table[trial.number, self._columns[name]] = value

    def _add(self, trial: SeenTrial, *, shaping: bool = True) -> None:
        self._note(trial)
        self._trials[trial.number] = trial
        insort(self._numbers, trial.number)
        insort(self._ranked, trial, key=lambda each: each.rank)
        if not shaping:
            return
        first = self.shapes.get(trial.names)
        if first is None or trial.number < first.number:
            self.shapes[trial.names] = trial


def thinned(numbers: Sequence[int], most: int, *, best: set[int], newest: int) -> set[int]:
    """Leaves trials out: of more than `most` keeps the best, the newest, and some of all times.

    Args:
        numbers: Of the trials, oldest first.
        most: How many are kept.
        best: Those that are kept for being the best.
        newest: How many others are kept for being the newest.
    """
    others = [number for number in numbers if number not in best]
    kept = best | set(others[len(others) - newest :])
    earlier = others[: len(others) - newest]
    spread = np.linspace(0, len(earlier) - 1, most - len(kept)).round().astype(int)
    return kept | {earlier[position] for position in spread}


def _rank(trial: FrozenTrial, sign: float) -> tuple[float, float]:
    """TPE's order: complete trials by value, then pruned ones by how far they came."""
    if trial.state == TrialState.COMPLETE and trial.values:
        return -np.inf, sign * trial.values[0]
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return -step, np.inf if np.isnan(value) else sign * value
    return np.inf, 0.0


def _of_another_space(trial: FrozenTrial) -> FrozenTrial | None:
    """A trial as it was before the space was changed, with the parameters that still are some."""
    kept = trial.user_attrs.get(OUTSIDE)
    if not kept or not kept["history"]:
        return None
    earlier = copy.copy(trial)
    earlier.params = kept["history"]["params"]
    earlier.distributions = {
        name: json_to_distribution(text) for name, text in kept["history"]["distributions"].items()
    }
    earlier.state = TrialState[kept["state"]]
    earlier.values = kept["values"]
    earlier.intermediate_values = {int(k): value for k, value in kept["rungs"].items()}
    return earlier
