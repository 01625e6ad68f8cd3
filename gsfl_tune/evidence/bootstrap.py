"""How sure a difference between two models on the same test images is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.run.results import Difference, Interval

# Counts held at once: 32 MiB of int64.
_CHUNK = 4_000_000


def paired_bootstrap(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Bootstraps the difference of two mean scores over images.

    Every image keeps its pair: its score is averaged over the seeds of each model first, then
    images are drawn with replacement. The interval therefore speaks about other test images
    for *these* trained models; how much retraining moves a model is what the deviation over
    seeds shows, and is not part of the interval.

    Args:
        correct_a: (N,) or (seeds, N) scores of the first model, one column an image;
            usually whether the prediction was right.
        correct_b: The same images in the same order; it may have another number of seeds.
        resamples: Bootstrap draws.
        seed: Of the draws.
        level: Confidence, between 0 and 1.

    Returns:
        a - b, with its percentile interval, as ``results.json`` keeps it.

    Raises:
        ValueError: If the images do not correspond or there are none.
    """
    a, b = _over_seeds(correct_a), _over_seeds(correct_b)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"pairs need the same images: got {a.size} and {b.size}")
    if not 0.0 < level < 1.0 or resamples < 1:
        raise ValueError(f"level {level} or resamples {resamples} out of range")
    # A resample's mean depends only on how often each distinct difference was drawn, and a few
    # seeds leave few of them: one multinomial draw replaces N indices.
    values, counts = np.unique(a - b, return_counts=True)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(values))
    means = np.concatenate(
        [
            generator.multinomial(len(a), counts / len(a), size=min(rows, resamples - start))
            @ values
            / len(a)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float((a - b).mean()), Interval(float(low), float(high), level))


def _over_seeds(correct: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(correct, dtype=np.float64)
    if scores.ndim not in (1, 2) or not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, (N,) or (seeds, N): got shape {scores.shape}")
    # Rounded, so that 1/3 + 1/3 in two orders counts as one value.
    return scores if scores.ndim == 1 else scores.mean(axis=0).round(12)
