"""Intervals of the difference of two models, and how often they miss the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from gsfl_tune.evidence.interval import spread_of

LEVEL = 0.95
RESAMPLES = 400

Table = NDArray[np.float64]
Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


def ours(a: Table, b: Table, fixed: bool = False) -> Bounds:
    """Of many pairs at once, tables (R, S, N); a fixed second model has no seed."""
    spread = spread_of([a, b], [True, not fixed])
    mean = a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))
    half = t.ppf((1 + LEVEL) / 2, spread.freedom) * np.sqrt(spread.variance)
    half = np.where(spread.variance > 0, half, 1 - ((1 - LEVEL) / 2) ** (1 / a.shape[2]))
    return mean - half, mean + half


def images_alone(a: Table, b: Table, fixed: bool = False) -> Bounds:
    """The paired bootstrap over images of the mean over seeds, which was used until now."""
    generator = np.random.default_rng(0)
    per_image = a.mean(axis=1) - b.mean(axis=1)
    count = per_image.shape[1]
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return _percentiles(per_image @ drawn.T / count)


def hierarchical(a: Table, b: Table, fixed: bool = False) -> Bounds:
    """Resamples seeds of either side, and images."""
    generator = np.random.default_rng(0)
    count = a.shape[2]
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weights = [
        generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
        for seeds in (a.shape[1], b.shape[1])
    ]
    by_seed = [each @ drawn.T / count for each in (a, b)]
    means = [np.einsum("rsk,ks->rk", *both) for both in zip(by_seed, weights, strict=True)]
    return _percentiles(means[0] - means[1])


def _percentiles(means: Table) -> Bounds:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return low, high


METHODS: dict[str, Callable[[Table, Table, bool], Bounds]] = {
    "this": ours,
    "images alone (until now)": images_alone,
    "hierarchical bootstrap": hierarchical,
}


def errors(
    pairs: Iterator[tuple[Table, Table]], truth: float, *, fixed: bool = False
) -> tuple[dict[str, float], float]:
    """Share of intervals that miss the truth, percent, by method; and the mean width of ours."""
    missed = dict.fromkeys(METHODS, 0)
    count, width = 0, 0.0
    for a, b in pairs:
        count += len(a)
        for name, method in METHODS.items():
            low, high = method(a, b, fixed)
            # A bound that is 0 but for rounding contains 0.
            missed[name] += int(((low > truth + 1e-12) | (high < truth - 1e-12)).sum())
            if name == "this":
                width += float((high - low).sum())
    return {name: 100 * number / count for name, number in missed.items()}, 100 * width / count
