"""What a study goes by: its objectives, and the constraints that a winner must keep.

Constraints are recorded in the journal as Optuna's own (`optuna.trial.Trial.set_constraint`), so
every sampler of Optuna that knows constraints respects them, after a resume too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from gsfl_tune.experiment.constraints import Constraint, parse_constraint
from gsfl_tune.experiment.metrics import LATENCY, MEASURED, Direction, metric_of
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.search.samplers.history import OTHERS, RUNGS

# User attribute of a trial: by epoch of its pretraining, the accuracy of nearest neighbours.
PRETRAINING = "pretrain_knn"
# User attribute of a trial: how its latency was measured, and whether that is reliable.
MEASURED_LATENCY = "latency"
# Begin of Optuna's system attribute of one constraint.
RECORDED = "constraints:"


@dataclass(frozen=True)
class Goals:
    """Describes the goals of a study.

    Attributes:
        metric: Key of the (first) objective.
        further: Keys of further objectives.
        constraints: What a trial must keep to win.
        at_rungs: Whether the scheduler compares all objectives.
        learnt: Whether the sampler learns all objectives of stopped trials.
    """

    metric: str
    further: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    at_rungs: bool = False
    learnt: bool = False

    @classmethod
    def of(cls, search: SearchConfig) -> Goals:
        """Reads them from the section `search`."""
        return cls(
            search.metric,
            tuple(search.objectives or ())[1:],
            tuple(parse_constraint(each) for each in search.constraints),
            search.scheduler.by_objectives,
            search.sampler.name == "gp",
        )

    @property
    def several(self) -> bool:
        """Returns whether there is more than one objective."""
        return bool(self.further)

    @property
    def directions(self) -> list[Direction]:
        """Returns ``maximize`` or ``minimize`` of every objective."""
        return [metric_of(key).direction for key in (self.metric, *self.further)]

    @property
    def others(self) -> tuple[str, ...]:
        """Returns the keys of the numbers that a worker reports besides the first objective."""
        keys = (*self.further, *(each.key for each in self.constraints))
        return tuple(dict.fromkeys(key for key in keys if key != self.metric))

    @property
    def measures(self) -> bool:
        """Returns whether something is measured on the model, which the epochs do not contain."""
        return any(key in MEASURED for key in self.others)

    @property
    def early_latency(self) -> bool:
        """Returns whether the latency is needed at the first rung, not only at a trial's end."""
        constrained = any(each.key == LATENCY for each in self.constraints)
        return constrained or ((self.at_rungs or self.learnt) and LATENCY in self.further)

    def costs(self, value: float, others: Mapping[str, float]) -> list[float] | None:
        """Returns all objectives, smaller is better; None where one is not known or not finite."""
        values = [value, *(others.get(key, math.nan) for key in self.further)]
        if not all(map(math.isfinite, values)):
            return None
        signs = [-1.0 if each == "maximize" else 1.0 for each in self.directions]
        return [sign * each for sign, each in zip(signs, values, strict=True)]

    def of_accuracy(self, accuracy: float) -> float:
        """Returns what a rung within a pretraining has in place of the first objective.

        It is better the larger it is, or the smaller it is, as the objective.

        Args:
            accuracy: Of the nearest neighbours.
        """
        return accuracy if self.directions[0] == "maximize" else round(1 - accuracy, 6)

    def costs_at(self, k: int, value: float, others: Mapping[str, float]) -> list[float] | None:
        """Returns what trials are compared by at rung `k`, smaller is better; see `costs`.

        In front of rung 0 it is the one number that a pretraining is judged by, in the direction
        of the first objective.
        """
        if k >= 0:
            return self.costs(value, others)
        sign = -1.0 if self.directions[0] == "maximize" else 1.0
        return [sign * value] if math.isfinite(value) else None

    def lacking(self, others: Mapping[str, float]) -> str | None:
        """Returns the first number that was not reported, or None."""
        return next((key for key in self.others if key not in others), None)

    def violations(self, value: float, others: Mapping[str, float]) -> dict[str, float]:
        """Returns by constraint how far it is from holding, above 0 where it does not hold.

        Args:
            value: The first objective.
            others: The other numbers by key; a constraint of an unknown one is left out.
        """
        known = {self.metric: value, **others}
        return {
            str(each): each.violation(known[each.key])
            for each in self.constraints
            if each.key in known
        }

    def hopeless(self, others: Mapping[str, float]) -> bool:
        """Returns whether a trial breaks a constraint that training longer does not change."""
        return any(
            each.key in MEASURED and each.key in others and each.violation(others[each.key]) > 0
            for each in self.constraints
        )


def recorded(violations: Mapping[str, float]) -> dict[str, float]:
    """Returns the system attributes in which Optuna keeps constraints."""
    return {f"{RECORDED}{text}": value for text, value in violations.items()}


def violation(trial: Any) -> float:
    """Returns by how much a trial breaks its constraints in all, as Optuna's TPE adds them up."""
    return float(sum(max(0.0, value) for value in trial.constraints.values()))


def feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial breaks none of its recorded constraints."""
    return violation(trial) <= 0


def others_by_rung(trial: FrozenTrial) -> dict[int, dict[str, float]]:
    """Returns by rung the numbers besides the first objective."""
    return {int(k): dict(values) for k, values in trial.user_attrs.get(OTHERS, {}).items()}


def knn_by_epoch(trial: Any) -> dict[int, float]:
    """Returns by epoch of a trial's pretraining the accuracy of nearest neighbours there."""
    known = trial.user_attrs.get(PRETRAINING, {})
    return {epoch: float(known[str(epoch)]) for epoch in sorted(map(int, known))}


def rungs_of(trial: FrozenTrial) -> dict[int, float]:
    """Returns the (first) objective at every rung that a trial has reached."""
    # With several objectives Optuna accepts no intermediate values.
    several = {int(k): float(value) for k, value in trial.user_attrs.get(RUNGS, {}).items()}
    return {**trial.intermediate_values, **several}


def latency_reliable(trial: FrozenTrial) -> bool | None:
    """Returns whether a trial's latency was measured on a quiet machine; None where unknown."""
    found: bool | None = trial.user_attrs.get(MEASURED_LATENCY, {}).get("reliable")
    return found


def latency_disturbance(trial: FrozenTrial) -> dict[str, float]:
    """Returns how far the parts of a trial's latency measurement differed, and the cores that
    other processes used meanwhile: ``spread`` (a share) and ``others``, as far as they are known.
    """
    known = trial.user_attrs.get(MEASURED_LATENCY, {})
    return {name: float(known[name]) for name in ("spread", "others") if name in known}


def latest_others(trial: FrozenTrial) -> dict[str, float]:
    """Returns these numbers at the last rung that a trial has reached; empty before."""
    found = others_by_rung(trial)
    return found[max(found)] if found else {}


def none_feasible(trials: Sequence[FrozenTrial], goals: Goals) -> str:
    """Says that no trial keeps the constraints, and how near the nearest one is."""
    text = f"no trial keeps search.constraints ({', '.join(map(str, goals.constraints))})"
    able = [trial for trial in trials if trial.constraints]
    if not able:
        return text
    nearest = min(able, key=lambda trial: (violation(trial), trial.number))
    values = latest_others(nearest)
    shown = ", ".join(
        f"{each.key} {values[each.key]:.4g}"
        for each in goals.constraints
        if each.key in values and each.violation(values[each.key]) > 0
    )
    return f"{text}; the nearest is trial {nearest.number}" + (f": {shown}" if shown else "")
