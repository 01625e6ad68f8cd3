"""Intervals of the difference of two models, and how often they miss the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Missed:
    """How often intervals of several methods missed the truth.

    Attributes:
        counts: Number of pairs of every chunk, such as those of one split of a data set.
        missed: By method, how many of them were missed in every chunk.
        width: Mean width of our interval, in points.
        chunks_differ: Whether a chunk is a draw of its own (a split), whose pairs have heads and
            images in common; else all pairs are drawn independently.
    """

    counts: NDArray[np.int64]
    missed: dict[str, NDArray[np.int64]]
    width: float
    chunks_differ: bool = False

    def rate(self, method: str) -> float:
        """Share of intervals that missed, percent."""
        return 100 * float(self.missed[method].sum()) / float(self.counts.sum())

    def error(self, method: str) -> float:
        """Standard error of the rate, percent: over pairs, or over chunks that differ.

        Not a number for a single chunk of pairs that are not independent.
        """
        if not self.chunks_differ:
            rate = self.rate(method) / 100
            return 100 * math.sqrt(rate * (1 - rate) / float(self.counts.sum()))
        rates = 100 * self.missed[method] / self.counts
        return float(rates.std(ddof=1) / math.sqrt(len(rates))) if len(rates) > 1 else math.nan


def errors(
    pairs: Iterator[tuple[Table, Table]],
    truth: float,
    *,
    fixed: bool = False,
    chunks_differ: bool = False,
) -> Missed:
    """Counts intervals that miss the truth.

    Args:
        pairs: Chunks of pairs, tables (R, S, N) of both models.
        truth: The true difference.
        fixed: Whether the second model has no seed.
        chunks_differ: See `Missed`.
    """
    counts, width = [], 0.0
    missed: dict[str, list[int]] = {name: [] for name in METHODS}
    for a, b in pairs:
        counts.append(len(a))
        for name, method in METHODS.items():
            low, high = method(a, b, fixed)
            # A bound that is 0 but for rounding contains 0.
            missed[name].append(int(((low > truth + 1e-12) | (high < truth - 1e-12)).sum()))
            if name == "this":
                width += float((high - low).sum())
    return Missed(
        np.asarray(counts),
        {name: np.asarray(each) for name, each in missed.items()},
        100 * width / sum(counts),
        chunks_differ,
    )
