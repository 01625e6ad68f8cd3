"""The finished and running trials of a study in the form that TPE needs, each read once."""

from __future__ import annotations

import copy
from bisect import insort
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# Of a bounded history, the number of best trials that are kept: more than the 25 that TPE uses at
# most.
BEST = 50
# User attribute of a RUNNING trial that waits: the rung at which it would have been stopped.
PAUSED = "paused"
# Beside it, when: seconds since 1970. Optuna knows the times of begins and ends only.
PAUSED_AT = "paused_at"
# User attribute of a trial: by rung, the first objective, where there are several.
RUNGS = "rungs"
# User attribute of a trial whose rungs go by time: the epoch of each.
RUNG_EPOCHS = "rung_epochs"
# User attribute of a trial: by rung, the numbers besides the first objective.
OTHERS = "others"
# User attribute of a trial that left the space when that was changed: its old content, see
# `gsfl_tune.search.opening.change_space`.
OUTSIDE = "outside"
# Attribute of a study whose time was over: of which time budget, and its share of it.
TIME_OVER = "time_over"
# Begin of the origin of a trial that an earlier run has given, and the study's attribute that names
# those runs.
WARM = "warm_start"


class SeenTrial:
    """Holds a trial for TPE; Optuna's class looks up every attribute in several dictionaries.

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
        # A trial is written with all its parameters at once, so it has no other attributes.
        self.system_attrs: dict[str, Any] = {}
        self.constraints = trial.constraints
        broken = sum(max(0.0, value) for value in self.constraints.values())
        # Trials that break a constraint come after all others, whatever their values.
        self.rank = (broken, *((0.0, 0.0) if broken else _rank(trial, sign)), trial.number)


class SeenTrials:
    """Holds the trials of one study; a finished trial is not read again.

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
        # Parameters as numbers, one row per trial and one column per parameter; NaN: not active.
        self._columns: dict[str, int] = {}
        self._table = np.full((256, 0), np.nan)
        self.shapes: dict[frozenset[str], SeenTrial] = {}
        self.whole: dict[int, dict[str, Any]] = {}

    def look(self, study: Any, number: int) -> list[SeenTrial]:
        """Reads new trials and changes.

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
            if trial.state != TrialState.WAITING and each in self._trials:
                self._see_again(trial)
            if is_paused(trial):
                if each not in self._trials:
                    self._add(SeenTrial(as_stopped(trial), sign))
            elif trial.state == TrialState.RUNNING and each != number:
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
        """Returns parameters as numbers.

        Args:
            trials: N trials that were read.
            names: P parameters.

        Returns:
            (n, P), one row for each trial that has all of them.
        """
        if any(name not in self._columns for name in names):
            return np.empty((0, len(names)))
        numbers = np.fromiter((trial.number for trial in trials), dtype=np.intp, count=len(trials))
        rows = self._table[numbers][:, [self._columns[name] for name in names]]
        found: np.ndarray = rows[~np.isnan(rows).any(axis=1)]
        return found

    def column(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """Returns (n,) values of a parameter as numbers, for trials in `numbers` with it."""
        column = self._columns.get(name)
        if column is None:
            return np.empty(0)
        values = self._table[numbers, column]
        found: np.ndarray = values[~np.isnan(values)]
        return found

    def best(self, count: int) -> list[SeenTrial]:
        """Returns the best finished trials, best first."""
        return self._ranked[:count]

    def history(self, most: int) -> list[SeenTrial]:
        """Returns finished trials by number; of too many the best, the newest, and an even sample.

        The best and the newest alone are good trials. The worst of them would stand for bad trials,
        and TPE would search elsewhere, where everything is worse.
        """
        if len(self._numbers) <= most:
            return [self._trials[number] for number in self._numbers]
        best = {trial.number for trial in self.best(min(BEST, most // 3))}
        kept = thinned(self._numbers, most, best=best, newest=(most - len(best)) // 2)
        return [self._trials[number] for number in sorted(kept)]

    def _see_running(self, trial: FrozenTrial, sign: float) -> SeenTrial:
        """Reads a running trial once: TPE sees no changes in it. There is one exception: if its
        driver was killed in the middle of a write, the rest of its parameters comes later.
        """
        seen = self._running.get(trial.number)
        if seen is None or len(seen.names) != len(trial.distributions):
            seen = self._running[trial.number] = SeenTrial(trial, sign)
            self._note(seen)
        return seen

    def _see_again(self, trial: FrozenTrial) -> None:
        """Forgets a paused trial that has gone on; it is open, so it has not ended before."""
        seen = self._trials[trial.number]
        if not is_paused(trial) or len(seen.intermediate_values) != len(trial.intermediate_values):
            del self._trials[trial.number]
            self._numbers.remove(trial.number)
            self._ranked.remove(seen)

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


def is_paused(trial: FrozenTrial) -> bool:
    """Returns whether a trial waits at a rung."""
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(PAUSED) is not None


def as_stopped(trial: FrozenTrial) -> FrozenTrial:
    """Returns a paused trial as if it had been stopped, and any other trial as it is."""
    if not is_paused(trial):
        return trial
    stopped = copy.copy(trial)
    stopped.state = TrialState.PRUNED
    last = max(trial.intermediate_values, default=-1)
    if last >= 0:  # in front of rung 0 it is not the objective
        stopped.values = [trial.intermediate_values[last]]
    return stopped


def earlier_configurations(study: Any) -> list[dict[str, Any]]:
    """Returns the configurations that earlier runs have given to a study, by trial number."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        params = trial.system_attrs.get("fixed_params")
        if params and str(trial.user_attrs.get("origin", "")).startswith(f"{WARM} "):
            found.append(dict(params))
    return found


def thinned(numbers: Sequence[int], most: int, *, best: set[int], newest: int) -> set[int]:
    """Selects trials: of more than `most` the best, the newest, and an even sample of the others.

    Args:
        numbers: Numbers of the trials, oldest first.
        most: Number of trials to keep.
        best: Trials that are kept for being the best.
        newest: How many other trials are kept for being the newest.
    """
    others = [number for number in numbers if number not in best]
    kept = best | set(others[len(others) - newest :])
    earlier = others[: len(others) - newest]
    spread = np.linspace(0, len(earlier) - 1, most - len(kept)).round().astype(int)
    return kept | {earlier[position] for position in spread}


def _rank(trial: FrozenTrial, sign: float) -> tuple[float, float]:
    """Returns TPE's order: complete trials by value, then pruned ones by their last rung."""
    if trial.state == TrialState.COMPLETE and trial.values:
        return -np.inf, sign * trial.values[0]
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return -step, np.inf if np.isnan(value) else sign * value
    return np.inf, 0.0


def _of_another_space(trial: FrozenTrial) -> FrozenTrial | None:
    """Returns a trial as it was before a change of the space, with parameters that still exist."""
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
    # A journal of an earlier version has them with their old numbers alone.
    rungs = kept["history"].get("rungs", kept["rungs"])
    earlier.intermediate_values = {int(k): value for k, value in rungs.items()}
    return earlier
