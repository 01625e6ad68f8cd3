"""CMA-ES over the numbers of a space, from every trial that ended.

Optuna's waits for COMPLETE trials that it proposed itself, generation by generation, and keeps its
state pickled in the study. Here the state is computed anew for every proposal from what the trials
show: nothing is stored, nothing unpickled, and later trials correct what the values of
stopped ones are taken for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from gsfl_tune.search.samplers.observations import Observer

# Of the first generation, as a share of a parameter's range; Optuna's.
WIDTH = 1 / 6


class CmaEs(Observer):
    """Proposes all numbers together by CMA-ES, and what is no number by another sampler.

    Trials are told in the order of their ends, a population at a time, whoever proposed them:
    start-up trials, enqueued ones, and those of a generation that is over. A step that is longer
    than CMA-ES expects is shortened before it counts, as for solutions that are injected from
    outside (Hansen, arXiv 1110.4181).

    Args:
        seed: Of this proposal.
        others: Draws start-up trials, and choices.
        options: See `Observer`; what it proposes together are the numbers.
    """

    def __init__(self, *args: Any, seed: int, others: BaseSampler, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seed = seed
        self._others = others

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A draw of the current generation; nothing during start-up."""
        seen = self.observe(study, trial.number) if search_space else None
        if seen is None:
            return {}
        transform = _SearchSpaceTransform(search_space, transform_step=True, transform_0_1=True)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        points = [(transform.transform(dict(t.params)), sign * t.value) for t in seen.ended]
        optimizer = _evolved(points, len(transform.bounds), transform.bounds)
        optimizer.reseed_rng(self._seed)
        drawn: dict[str, Any] = transform.untransform(optimizer.ask())
        return drawn

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What the other sampler draws."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _evolved(points: list[tuple[np.ndarray, float]], dimensions: int, bounds: np.ndarray) -> Any:
    """CMA-ES after all whole populations of (point, value to be minimised)."""
    import cmaes

    optimizer = cmaes.CMA(
        mean=np.full(dimensions, 0.5),
        sigma=WIDTH,
        bounds=bounds,
        n_max_resampling=10 * dimensions,
    )
    size = optimizer.population_size
    for start in range(0, len(points) - size + 1, size):
        population = points[start : start + size]
        optimizer.tell([(_shortened(optimizer, x), value) for x, value in population])
    return optimizer


def _shortened(optimizer: Any, x: np.ndarray) -> np.ndarray:
    """A point, brought nearer along its step from the mean where CMA-ES would hardly have gone."""
    dimensions = len(x)
    longest = np.sqrt(dimensions) + 2 * dimensions / (dimensions + 2)
    basis, scales = optimizer._eigen_decomposition()
    step = (x - optimizer._mean) / optimizer._sigma
    length = float(np.linalg.norm((basis.T @ step) / scales))
    nearer: np.ndarray = (
        x if length <= longest else optimizer._mean + (optimizer._sigma * step * longest / length)
    )
    return nearer
