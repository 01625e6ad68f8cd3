"""What can be read of a study while a search goes on."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.metrics import Direction
from gsfl_tune.search.samplers.history import OUTSIDE, RUNGS
from gsfl_tune.search.study.goals import Goals, feasible, violation
from gsfl_tune.search.study.proposals import Proposals
from gsfl_tune.search.study.tally import Tally

_STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")


class StudyReading:
    """Reads a study.

    Attributes:
        goals: Objectives and constraints.
        direction: Direction of the (first) objective.
    """

    goals: Goals
    direction: Direction
    _study: optuna.Study
    _storage: BaseStorage
    _id: int
    _tally: Tally
    _proposals: Proposals

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials by number. They are the study's own objects: do not change them."""
        return self._study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """Returns one trial. It is the study's own object: do not change it."""
        return self._storage.get_trial(self._trial_id(number))

    def running(self) -> list[int]:
        """Returns the numbers of the running trials, oldest first."""
        return self._tally.running()

    def counts(self) -> dict[str, int]:
        """Counts trials by state: COMPLETE, PRUNED, FAIL, RUNNING, WAITING."""
        return {name: self._tally.count(TrialState[name]) for name in _STATES}

    def created(self) -> int:
        """Counts trials that were handed out, finished or not. The budget limits this number."""
        return len(self._tally) - len(self._tally.waiting)

    @property
    def configurations(self) -> int:
        """Counts the different configurations of its trials, as of the last proposal."""
        return len(self._proposals.tried)

    def rungs(self, trial: FrozenTrial) -> Mapping[int, float]:
        """Returns the objective at every rung that a trial has reached; none outside the space."""
        if not self.goals.several:
            return trial.intermediate_values
        # Its attributes stay, for a change that takes it back.
        known = {} if OUTSIDE in trial.user_attrs else trial.user_attrs.get(RUNGS, {})
        return {int(k): value for k, value in known.items()}

    def value(self, trial: FrozenTrial) -> float | None:
        """Returns the (first) objective of a finished trial, or None without one."""
        return float(trial.values[0]) if trial.values else None

    def ranking(self) -> list[FrozenTrial]:
        """Returns COMPLETE trials, best first; ties are ordered by number.

        Those that break a constraint come last, the least one first.
        """
        complete = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return sorted(complete, key=self._key)

    def best(self) -> FrozenTrial | None:
        """Returns the best COMPLETE trial of those that keep the constraints."""
        found = self._tally.best
        return None if found is None or not feasible(found) else found

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _key(self, trial: FrozenTrial) -> tuple[float, float, int]:
        """Returns the sort key that puts the best trial first."""
        sign = -1.0 if self.direction == "maximize" else 1.0
        return violation(trial), sign * (self.value(trial) or 0.0), trial.number
