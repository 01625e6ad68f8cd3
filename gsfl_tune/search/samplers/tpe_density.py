"""TPE's density of a single parameter, a mixture with one kernel per trial.

The density is the same as Optuna's: truncated normal kernels as wide as the distance to the farther
neighbour, one more that covers the range, and higher weights for newer trials. Optuna adds
logarithms of every kernel at every position, for any number of parameters. Here it is one product
of a matrix and a vector.

Source: Bergstra, Bardenet, Bengio, Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS
2011, section 4; Watanabe, "Tree-Structured Parzen Estimator", arXiv:2304.11127.
"""

from __future__ import annotations

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.special import ndtr, ndtri

_SQRT_2_PI = float(np.sqrt(2 * np.pi))
# The newest trials have full weight, older ones less with age.
_FULL_WEIGHT = 25


def density(distribution: BaseDistribution, values: np.ndarray) -> Choices | Numbers | None:
    """Makes the density of a parameter.

    Args:
        distribution: Distribution of the parameter.
        values: (n,) values of the trials, oldest first; indices of choices.

    Returns:
        None for other distributions, or for values out of bounds.
    """
    weights = _weights(len(values))
    if isinstance(distribution, CategoricalDistribution):
        return Choices(len(distribution.choices), values.astype(np.intp), weights)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    if len(values) and not distribution.low <= values.min() <= values.max() <= distribution.high:
        return None
    return Numbers(distribution, values, weights)


class Choices:
    """Models a density over C choices.

    Args:
        count: Number C of choices.
        observed: (n,) indices.
        weights: (n + 1,) weights of the kernels; the last one is uniform.
    """

    def __init__(self, count: int, observed: np.ndarray, weights: np.ndarray) -> None:
        self._count = count
        self._observed = observed
        self._weights = weights
        # Weight that a kernel gives to each other choice, before normalisation.
        self._rest = 1.0 / len(weights)
        self._norm = 1.0 + count * self._rest

    def draw(self, rng: np.random.RandomState, count: int) -> np.ndarray:
        """Draws (count,) indices of choices, as floats."""
        chosen = rng.choice(len(self._weights), p=self._weights, size=count)
        kernels = np.full((count, self._count), self._rest)
        own = np.flatnonzero(chosen < len(self._observed))
        kernels[own, self._observed[chosen[own]]] += 1.0
        kernels /= kernels.sum(axis=1, keepdims=True)
        up_to = kernels.cumsum(axis=1)
        up_to[:, -1] = 1.0
        drawn: np.ndarray = (up_to < rng.rand(count)[:, None]).sum(axis=1).astype(np.float64)
        return drawn

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        """Returns log probabilities of choices."""
        own, prior = self._weights[:-1], self._weights[-1]
        found = np.bincount(self._observed, weights=own, minlength=self._count)
        found = (found + own.sum() * self._rest) / self._norm + prior / self._count
        logs: np.ndarray = np.log(found)[x.astype(np.intp)]
        return logs


class Numbers:
    """Models a density over a range, its logarithm, or the steps in it.

    Args:
        distribution: The range.
        values: (n,) values within it.
        weights: (n + 1,) weights of the kernels; the last one covers the range.
    """

    def __init__(
        self,
        distribution: FloatDistribution | IntDistribution,
        values: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        self._bounds = distribution.low, distribution.high
        self._step = distribution.step
        self._log = distribution.log
        half = (self._step or 0.0) / 2
        ends = np.array([distribution.low - half, distribution.high + half])
        low, high = np.log(ends) if self._log else ends
        self._means = np.append(np.log(values) if self._log else values, 0.5 * (low + high))
        self._widths = np.append(_widths(self._means[:-1], low, high), high - low)
        self._weights = weights
        self._below = ndtr((low - self._means) / self._widths)
        self._mass = ndtr((high - self._means) / self._widths) - self._below

    def draw(self, rng: np.random.RandomState, count: int) -> np.ndarray:
        """Draws (count,) values."""
        chosen = rng.choice(len(self._weights), p=self._weights, size=count)
        quantiles = self._below[chosen] + rng.uniform(size=count) * self._mass[chosen]
        drawn = self._means[chosen] + self._widths[chosen] * ndtri(quantiles)
        if self._log:
            drawn = np.exp(drawn)
        low, high = self._bounds
        if self._step:
            drawn = low + np.round((drawn - low) / self._step) * self._step
        within: np.ndarray = np.clip(drawn, low, high)
        return within

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        """Returns log densities at values, log probabilities where there are steps."""
        # The kernel that covers the range keeps the sum above zero everywhere.
        if self._step:
            return np.log(self._of_steps(x) @ (self._weights / self._mass))
        at = (np.log(x) if self._log else x)[:, None] - self._means
        at /= self._widths
        at *= at
        at *= -0.5
        np.exp(at, out=at)
        return np.log(at @ (self._weights / (self._mass * self._widths * _SQRT_2_PI)))

    def _of_steps(self, x: np.ndarray) -> np.ndarray:
        """Returns (len(x), n + 1): the mass of each kernel in the step around a value."""
        assert self._step
        different, where = np.unique(x, return_inverse=True)
        ends = np.array([different - self._step / 2, different + self._step / 2])
        if self._log:
            ends = np.log(ends)
        left, right = (ends[:, :, None] - self._means) / self._widths
        # Differences of numbers close to one would lose digits, so the other tail is used.
        other = left > 0
        left, right = np.where(other, -right, left), np.where(other, -left, right)
        found: np.ndarray = (ndtr(right) - ndtr(left))[where]
        return found


def _weights(n: int) -> np.ndarray:
    """Returns (n + 1,) weights that add up to one; the last is the prior's."""
    weights = np.ones(n + 1)
    if n > _FULL_WEIGHT:
        weights[: n - _FULL_WEIGHT] = np.linspace(1.0 / n, 1.0, num=n - _FULL_WEIGHT)
    return weights / weights.sum()


def _widths(means: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns (n,) standard deviations: the distance to the farther neighbour.

    The outermost values have only one neighbour. The smallest width is a hundredth of the range,
    or more with fewer kernels than that.
    """
    order = np.argsort(means)
    row = np.concatenate(([low], means[order], [high]))
    gaps = row[1:] - row[:-1]
    widths = np.empty(len(means))
    ordered = np.maximum(gaps[:-1], gaps[1:])
    if len(means) > 1:
        ordered[0], ordered[-1] = gaps[1], gaps[-2]
    widths[order] = ordered
    least = (high - low) / min(100.0, 2.0 + len(means))
    return np.clip(widths, least, high - low)
