"""Samplers that installed packages add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from gsfl_tune.plugins import PluginError, plugins, unmade


@dataclass(frozen=True)
class SamplerRequest:
    """Holds the input for a sampler: one requested proposal.

    Attributes:
        seed: For all draws of this proposal; made of the study's seed and `number`.
        study_seed: Seed of the study, for what must be the same in all of its proposals.
        number: Number of the trial to be proposed.
        startup_trials: ``search.sampler.startup_trials``.
        parameters: Every parameter of the space, active or not, with its allowed values.
    """

    seed: int
    study_seed: int
    number: int
    startup_trials: int
    parameters: Mapping[str, BaseDistribution]


class SamplerFactory(ABC):
    """Makes the sampler that proposes one trial.

    A new sampler is made for every proposal, and knows earlier ones only from the study. So a
    resumed search neither repeats nor skips draws.

    Attributes:
        whole_space: Whether it needs every parameter in every trial; then inactive ones are drawn
            too, without effect.
    """

    whole_space: ClassVar[bool] = False

    @abstractmethod
    def create(self, request: SamplerRequest) -> BaseSampler:
        """Creates the sampler for a proposal."""


def sampler_factory(name: str) -> SamplerFactory | None:
    """Returns the factory of a sampler from a package; None for a built-in sampler.

    Raises:
        PluginError: If it cannot be loaded.
    """
    added = plugins("sampler").get(name)
    if added is None:
        return None
    kind = added.load_class(SamplerFactory)
    try:
        factory: SamplerFactory = kind()
    except MemoryError:
        raise
    except Exception as error:
        raise unmade(added, "without arguments", error) from error
    return factory


def sampler_problem(name: str) -> str | None:
    """Returns what is wrong with a value of ``search.sampler.name``, or None."""
    try:
        _ = sampler_factory(name)
    except PluginError as error:
        return str(error)
    return None
