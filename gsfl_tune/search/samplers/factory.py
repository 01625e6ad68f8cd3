"""The choice of a sampler: Optuna's samplers, made reproducible and aware of the whole space."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.plugins import PluginError
from gsfl_tune.search.samplers.cma_es import CmaEs
from gsfl_tune.search.samplers.gaussian_process import Gp
from gsfl_tune.search.samplers.grid import GridSampler
from gsfl_tune.search.samplers.history import SeenTrials
from gsfl_tune.search.samplers.near_defaults import NearDefaults
from gsfl_tune.search.samplers.plugin import SamplerFactory, SamplerRequest, sampler_factory
from gsfl_tune.search.samplers.tpe import Tpe

Distributions = dict[str, BaseDistribution]

_NUMBERS = (FloatDistribution, IntDistribution)
_ALL = (*_NUMBERS, CategoricalDistribution)


def create_sampler(
    config: SamplerConfig,
    space: Space,
    seed: int,
    number: int,
    memory: SeenTrials | None = None,
    *,
    further: Sequence[str] = (),
    turned_down: Sequence[Mapping[str, Any]] = (),
) -> BaseSampler:
    """Creates the sampler that proposes trial `number`.

    A new sampler is made for every trial and seeded from (study seed, trial number). So a resumed
    study does not repeat draws, and equal histories give equal proposals. A grid draws nothing,
    and may serve all trials.

    Args:
        config: Name and start-up trials.
        space: The search space.
        seed: Seed of the study.
        number: Number of the trial to be proposed.
        memory: What TPE has read of the study's trials; avoids reading them again.
        further: Keys of the objectives of the study after the first.
        turned_down: Earlier proposals for this trial that were rejected.

    Raises:
        UserError: For a grid over a continuous parameter, or a grid too large to enumerate.
        PluginError: For a sampler of a package that cannot be loaded.
    """
    again = [len(turned_down)] if turned_down else []
    draw = int(np.random.SeedSequence([seed, number, *again]).generate_state(1)[0])
    startup = config.startup_trials
    if config.name == "grid":
        return GridSampler(space, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        factory = sampler_factory(config.name)
        if factory is not None:
            request = SamplerRequest(draw, seed, number, startup, whole_space(space))
            return _made(factory, config.name, request)
        if config.name == "random":
            return RandomSampler(seed=draw)
        if config.name == "tpe" and further:
            # Optuna's own sampler: ours supports one objective only.
            return TPESampler(
                multivariate=config.multivariate,
                group=config.multivariate,
                constant_liar=True,
                n_startup_trials=startup,
                seed=draw,
            )
        if config.name == "tpe":
            draws = {each.name: each.distribution for each in space.parameters}
            chosen = {name: draw.default for name, draw in draws.items() if draw.chosen}
            return Tpe(
                seed=draw,
                startup_trials=startup,
                multivariate=config.multivariate,
                memory=memory,
                near=NearDefaults(chosen, config.near_defaults, draw),
            )
        whole = whole_space(space)
        known = None if memory is None else memory.whole
        if config.name == "gp":
            return Gp(
                space,
                _relative(whole, _ALL),
                startup_trials=startup,
                seed=draw,
                avoid=turned_down,
                known=known,
                further=further,
            )
        if config.name == "cmaes":
            return CmaEs(
                space,
                _relative(whole, _NUMBERS),
                startup_trials=startup,
                seed=draw,
                # Choices have no distances, so they are drawn by TPE.
                others=Tpe(seed=draw, startup_trials=startup, memory=memory),
                known=known,
            )
        # There is one sequence: its scrambling depends only on the study's seed.
        return _Sobol(
            whole,
            qmc_type="sobol",
            scramble=True,
            seed=seed,
            independent_sampler=RandomSampler(seed=draw),
        )


def draws_every_value(name: str) -> bool:
    """Returns whether untried values of choices come first with a sampler.

    They do with `sobol`, too: its points repeat a value before the last one comes, where the number
    of values is no power of two. They do not with `grid`, which reaches all values, nor with
    samplers of packages, which decide this themselves.
    """
    return sampler_factory(name) is None and name != "grid"


def draws_everything(name: str) -> bool:
    """Returns whether a sampler draws inactive parameters too; those of packages may ask for it."""
    factory = sampler_factory(name)
    return factory is not None and factory.whole_space


def _made(factory: SamplerFactory, name: str, request: SamplerRequest) -> BaseSampler:
    sampler = factory.create(request)
    if not isinstance(sampler, BaseSampler):
        found = type(sampler).__name__
        raise PluginError(f"sampler {name} is made as {found}, which is not an Optuna sampler")
    return sampler


def whole_space(space: Space) -> Distributions:
    """Returns every parameter of a space with its Optuna distribution, active or not."""
    recorder = _Recorder()
    space.suggest(recorder, everything=True)
    return recorder.distributions


class _Recorder:
    """Replaces an Optuna trial and records the suggested parameters."""

    def __init__(self) -> None:
        self.distributions: Distributions = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.distributions[name] = CategoricalDistribution(choices)
        return choices[0]

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.distributions[name] = IntDistribution(low, high, log=log, step=step)
        return low

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log, step=step)
        return low


def _relative(whole: Distributions, kinds: tuple[type[BaseDistribution], ...]) -> Distributions:
    return {
        name: distribution
        for name, distribution in sorted(whole.items())
        if isinstance(distribution, kinds) and not distribution.single()
    }


class _Sobol(QMCSampler):
    """Draws a scrambled Sobol sequence: the n-th sampled trial gets the n-th point.

    Optuna's version counts its calls. So it skips a point for every enqueued trial that does not
    name all parameters, and for a trial that is handed out again before all its parameters were
    written. Here the count comes from the trials.
    """

    def __init__(self, whole: Distributions, **options: Any) -> None:
        super().__init__(**options)
        self._point = 0
        self._whole = _relative(whole, _ALL)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Distributions:
        return self._whole

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """Returns the trial's point; nothing for an enqueued trial, which has its own."""
        if fixed_params(trial) is not None:
            return {}
        self._point = sum(
            earlier.number < trial.number and fixed_params(earlier) is None
            for earlier in study.get_trials(deepcopy=False)
        )
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: optuna.Study, search_space: Distributions) -> int:
        return self._point


def fixed_params(trial: FrozenTrial) -> dict[str, Any] | None:
    """Returns the parameters that a trial was enqueued with, None for a sampled trial."""
    found: dict[str, Any] | None = trial.system_attrs.get("fixed_params")
    return found
