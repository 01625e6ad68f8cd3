"""CMA-ES over the numbers of a space, learning from every trial that ended.

Optuna's version waits for COMPLETE trials of its own, generation by generation, and keeps its state
pickled in the study. Here the state is computed again for every proposal from the trials' values.
Nothing is stored or unpickled, and later trials correct the values assumed for stopped ones.
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

# Width of the first generation as a share of a parameter's range, as in Optuna.
WIDTH = 1 / 6


class CmaEs(Observer):
    """Proposes all numbers jointly by CMA-ES, and all other parameters by another sampler.

    Trials are passed to it in the order of their ends, one population at a time, whatever their
    origin: start-up trials, enqueued ones, and those of an old generation. A step that is longer
    than CMA-ES expects is shortened first, as for solutions that are injected from outside (Hansen,
    arXiv 1110.4181).

    Args:
        seed: Seed of this proposal.
        others: Draws start-up trials, and choices.
        options: See `Observer`; the numbers are proposed jointly.
    """

    def __init__(self, *args: Any, seed: int, others: BaseSampler, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seed = seed
        self._others = others

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws from the current generation; returns nothing during start-up."""
        seen = self.observe(study, trial.number) if search_space else None
        if seen is None:
            return {}
        transform = _SearchSpaceTransform(search_space, transform_step=True, transform_0_1=True)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        points = [(transform.transform(dict(t.params)), sign * t.value) for t in seen.ended]
        # CMA-ES goes by the order alone: what breaks a constraint is behind everything else.
        worst = max(value for _, value in points) if points else 0.0
        points = [
            (place, worst + t.broken if t.broken else value)
            for (place, value), t in zip(points, seen.ended, strict=True)
        ]
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
        """Returns what the other sampler draws."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _evolved(points: list[tuple[np.ndarray, float]], dimensions: int, bounds: np.ndarray) -> Any:
    """Returns CMA-ES after all complete populations of (point, value to be minimised)."""
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
    """Shortens a point's step from the mean where CMA-ES would hardly have gone that far."""
    dimensions = len(x)
    longest = np.sqrt(dimensions) + 2 * dimensions / (dimensions + 2)
    basis, scales = optimizer._eigen_decomposition()
    step = (x - optimizer._mean) / optimizer._sigma
    length = float(np.linalg.norm((basis.T @ step) / scales))
    nearer: np.ndarray = (
        x if length <= longest else optimizer._mean + (optimizer._sigma * step * longest / length)
    )
    return nearer
