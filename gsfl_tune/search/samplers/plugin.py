"""Samplers that installed packages add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from gsfl_tune.plugins import PluginError, plugins


@dataclass(frozen=True)
class SamplerRequest:
    """What a sampler is made for: one proposal.

    Attributes:
        seed: For everything that is drawn for this proposal; made of the study's seed and `number`.
        study_seed: Seed of the study, for what must be the same for all of its proposals.
        number: Number of the trial that is to be proposed.
        startup_trials: ``search.sampler.startup_trials``.
        parameters: Every parameter of the space, active or not, with what it may be.
    """

    seed: int
    study_seed: int
    number: int
    startup_trials: int
    parameters: Mapping[str, BaseDistribution]


class SamplerFactory(ABC):
    """Makes the sampler that proposes one trial.

    A sampler is made anew for every proposal, and knows of earlier ones what the study tells: so
    a resumed search neither repeats nor skips draws.

    Attributes:
        whole_space: Whether it needs every parameter in every trial; inactive ones are drawn then
            too, and have no effect.
    """

    whole_space: ClassVar[bool] = False

    @abstractmethod
    def create(self, request: SamplerRequest) -> BaseSampler:
        """The sampler for a proposal."""


def sampler_factory(name: str) -> SamplerFactory | None:
    """The factory of a sampler that a package adds; None for one that is built in.

    Raises:
        PluginError: If it cannot be loaded.
    """
    added = plugins("sampler").get(name)
    if added is None:
        return None
    kind = added.load_class(SamplerFactory)
    try:
        factory: SamplerFactory = kind()
    except TypeError as error:
        raise PluginError(f"{added} cannot be made without arguments ({error})") from error
    return factory


def sampler_problem(name: str) -> str | None:
    """What is wrong with a value of ``search.sampler.name``, or None."""
    try:
        _ = sampler_factory(name)
    except PluginError as error:
        return str(error)
    return None
