"""A sampler that inherits from the best trial."""

from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search import SamplerFactory, SamplerRequest


class Inherit(SamplerFactory):
    """Makes `InheritSampler`."""

    def create(self, request: SamplerRequest) -> BaseSampler:
        """The sampler for one proposal."""
        return InheritSampler(request.seed, request.startup_trials)


class InheritSampler(BaseSampler):
    """Every parameter is the best finished trial's, or drawn at random, each half of the time."""

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._random = RandomSampler(seed=seed)
        self._coin = np.random.default_rng(seed)
        self._startup_trials = startup_trials

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        """One parameter's value."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(finished) > self._startup_trials and self._coin.random() < 0.5:
            best = study.best_trial.params
            if name in best:
                return best[name]
        return self._random.sample_independent(study, trial, name, distribution)
