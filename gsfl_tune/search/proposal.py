"""What a sampler would propose next, without making a trial of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.space import Space


class ReadOnlyStudy:
    """A study whose trials can be read; what samplers note for other processes goes nowhere.

    Args:
        study: The study.
    """

    def __init__(self, study: Any) -> None:
        self._study = study
        self._storage = _Nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _Nowhere:
    """Takes the place of a storage."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Does nothing."""


def propose(
    study: optuna.Study,
    sampler: BaseSampler,
    space: Space,
    number: int,
    *,
    everything: bool = False,
) -> dict[str, Any]:
    """The parameters that ``study.ask`` would draw for a trial, were it created now.

    Not for samplers that keep their state in the storage (CMA-ES).

    Args:
        study: What is known so far; it is not changed.
        sampler: Who proposes.
        space: The search space.
        number: Number of the trial to come.
        everything: Draw inactive parameters too, see `Space.suggest`.

    Returns:
        Values by parameter name.
    """
    return space.suggest(_Draft(study, sampler, number), everything=everything)


class _Draft:
    """Takes the place of an Optuna trial, and draws in the order that it does."""

    def __init__(self, study: optuna.Study, sampler: BaseSampler, number: int) -> None:
        view: Any = ReadOnlyStudy(study)
        self._study = view
        self._sampler = sampler
        self._trial = FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=-1,
        )
        sampler.before_trial(view, self._trial)
        joint = sampler.infer_relative_search_space(view, self._trial)
        self._relative = sampler.sample_relative(view, self._trial, joint)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if distribution.single():
            choices = getattr(distribution, "choices", None)
            value = choices[0] if choices else distribution.low  # type: ignore[attr-defined]
        elif name in self._relative and distribution._contains(
            distribution.to_internal_repr(self._relative[name])
        ):
            value = self._relative[name]
        else:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self._trial.params[name] = value
        self._trial.distributions[name] = distribution
        return value
