"""A sampler's next proposal, computed without creating a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from gsfl_tune.search.samplers.configurations import Tried
from gsfl_tune.search.samplers.cost_aware import Affordable

# How often a sampler is asked for a new configuration.
_ATTEMPTS = 5


class ReadOnlyStudy:
    """Gives read access to a study; attributes of the next trial are kept aside.

    Args:
        study: The study.

    Attributes:
        notes: System attributes for the next trial.
    """

    def __init__(self, study: Any) -> None:
        self._study = study
        self.notes: dict[str, Any] = {}
        self._storage = _Aside(study, self.notes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _Aside:
    """Replaces a storage: reads pass through, and nothing is written."""

    def __init__(self, study: Any, notes: dict[str, Any]) -> None:
        self._real = study._storage
        self._notes = notes

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keeps the attribute for the next trial."""
        self._notes[key] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("set_", "create_", "delete_", "_")):
            raise AttributeError(f"{name}: a sampler may set attributes of its own trial only")
        return getattr(self._real, name)


@dataclass(frozen=True)
class Proposal:
    """Holds a future trial.

    Attributes:
        params: Values by parameter name.
        notes: System attributes that the sampler expects in it later.
    """

    params: dict[str, Any]
    notes: dict[str, Any]


def propose(
    study: optuna.Study,
    sampler: BaseSampler,
    space: Space,
    number: int,
    *,
    everything: bool = False,
    first: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
) -> Proposal:
    """Returns the trial that ``study.ask`` would create now.

    Args:
        study: The study; it is not changed.
        sampler: Makes the proposal.
        space: The search space.
        number: Number of the next trial.
        everything: Draw inactive parameters too, see `Space.suggest`.
        first: By choice, values of which it gets one, whatever the sampler prefers.
        seed: Seed of the study, to draw one of these.
    """
    draft = _Draft(study, sampler, number, first or {}, seed)
    return Proposal(space.suggest(draft, everything=everything), draft.notes)


def propose_new(
    study: optuna.Study,
    sampler: Callable[[Sequence[Mapping[str, Any]]], BaseSampler],
    space: Space,
    number: int,
    tried: Tried,
    *,
    seed: int,
    everything: bool = False,
    every_value: bool = True,
    affordable: Affordable | None = None,
) -> Proposal | None:
    """Proposes a configuration that no trial has had: a repeat would give the same bits.

    A sampler that proposes a repeat is asked again a few times. Then one of the remaining
    configurations is drawn at random. A proposal that costs too much is made cheaper, see
    `Affordable`.

    Args:
        study: The study; it is not changed.
        sampler: Makes a sampler, given the proposals that were rejected before.
        space: The search space.
        number: Number of the next trial.
        tried: Configurations that the study has tried.
        seed: Seed of the study.
        everything: Draw inactive parameters too, see `Space.suggest`.
        every_value: Whether untried values of choices come first.
        affordable: Decides about expensive configurations; default: they are taken as they are.

    Returns:
        None when every configuration was tried.
    """
    tried.look(study.get_trials(deepcopy=False))
    if tried.exhausted():
        return None
    first = tried.untried() if every_value else {}
    turned_down: list[dict[str, Any]] = []
    while len(turned_down) < _ATTEMPTS:
        found = propose(
            study,
            sampler(turned_down),
            space,
            number,
            everything=everything,
            first=first,
            seed=seed,
        )
        if tried.is_new(found.params):
            if affordable is None:
                return found
            attempt = len(turned_down)
            params = affordable.afford(
                number, found.params, attempt, keep=first, is_new=tried.is_new
            )
            return Proposal(params, found.notes)
        turned_down.append(found.params)
    rng = np.random.default_rng([seed, number, 3])
    return Proposal(tried.draw(rng, everything=everything), {})


class _Draft:
    """Replaces an Optuna trial, and draws in the same order."""

    def __init__(
        self,
        study: optuna.Study,
        sampler: BaseSampler,
        number: int,
        first: Mapping[str, Sequence[Any]],
        seed: int,
    ) -> None:
        view: Any = ReadOnlyStudy(study)
        self.notes: dict[str, Any] = view.notes
        self._first = first
        self._rng = np.random.default_rng([seed, number, 2])
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
        wanted = self._first.get(name)
        if wanted:
            value = wanted[int(self._rng.integers(len(wanted)))]
            own = self._relative.get(name)
            # What the sampler proposes itself stays where it is untried: a point of a sequence.
            if any(repr(own) == repr(each) for each in wanted):
                value = own
            return self._keep(name, CategoricalDistribution(choices), value)
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
        return self._keep(name, distribution, value)

    def _keep(self, name: str, distribution: BaseDistribution, value: Any) -> Any:
        self._trial.params[name] = value
        self._trial.distributions[name] = distribution
        return value
