"""Confidence intervals of differences and means, over test images and training seeds.

Every model of a comparison is trained with a few seeds and tested on the same images. This is the
layout of a multi-reader, multi-case study with readers nested in modalities: seeds are readers,
test images are cases. The variance of the difference of two means has three parts:

    images:  var(D) / N               D: an image's difference, over all possible seeds
    seeds:   s^2 / S for each side    effect of a seed on all images alike
    both:    e^2 / (N S) for each     effect of a seed on this image

Each part has an unbiased estimate in the two-way table of scores. The paired bootstrap over images
measures the first and the third; the deviation of accuracies over seeds measures the second and the
third. The variance used here is the sum of the first two estimates, with the third counted once. It
is never below the estimate from the images alone. Its degrees of freedom are Satterthwaite's: three
seeds per side give a t distribution with at most four of them, unless the images dominate.

Sources: Obuchowski and Rockette, Communications in Statistics B 24 (1995) 285; Hillis, Statistics
in Medicine 26 (2007) 596 (degrees of freedom). How often the interval errs is measured in
``benchmarks/coverage.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.run.results import IMAGES_ALONE, SEEDS_AND_IMAGES, Difference, Interval

Table = NDArray[np.float64]

# Share of the seeds' variance that counts as known if it is that of single images. All images
# determine its size; the few seeds determine only the rest. With three seeds per side and no
# difference of images, the interval errs in 3.1 to 4.8 % of the cases at 0, in 3.4 to 7.2 % at 1,
# here in 3.3 to 6.5 %, depending on the effect of seeds.
_KNOWN = 0.75
# From this many images on, their variance counts as known exactly.
_MANY = 100


@dataclass(frozen=True)
class Spread:
    """Holds the variance of a mean or of a difference of two means, and its precision.

    Attributes:
        variance: Variance of the estimate.
        freedom: Degrees of freedom of the t distribution; infinite for a normal one.
        seeds: Whether it includes the effect of another training.
    """

    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]
    seeds: bool


def difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    *,
    level: float = 0.95,
    metric: str = "test/accuracy",
) -> Difference:
    """Computes the difference of two mean scores, with an interval over seeds and test images.

    The interval holds for the two configurations on the given training images. It covers other
    seeds and other test images, not another training set.

    Args:
        scores_a: (seeds, N) scores of the first model, one column per image; usually whether the
            prediction was right. (N,) for a model without a seed, such as a linear probe.
        scores_b: The same images in the same order; it may have another number of seeds.
        level: Confidence, between 0 and 1.
        metric: Name of the scores.

    Returns:
        a - b, as in ``results.json``. If a model that depends on the seed has only one seed, the
        interval covers images alone, and its ``method`` says so.

    Raises:
        ValueError: If the images do not correspond or there are none.
    """
    a, b = _table(scores_a), _table(scores_b)
    if a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise ValueError(f"pairs need the same images: got {a.shape[1]} and {b.shape[1]}")
    seeds = [np.ndim(scores_a) == 2, np.ndim(scores_b) == 2]
    spread = spread_of([a, b], seeds)
    mean = float(a.mean() - b.mean())
    half = _half_width(spread, level, a.shape[1])
    return Difference(mean, Interval(mean - half, mean + half, level, _method(spread)), metric)


def mean_interval(scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """Computes the interval of a share, over seeds and test images.

    This is Wilson's interval with the number of images that would give this variance. So a model
    without errors does not get an interval of zero width.

    Args:
        scores: (seeds, N) shares between 0 and 1, or (N,) for a model without a seed.
        level: Confidence, between 0 and 1.

    Raises:
        ValueError: If there is no image.
    """
    table = _table(scores)
    if not table.size:
        raise ValueError("no images")
    count = table.shape[1]
    spread = spread_of([table], [np.ndim(scores) == 2])
    share = float(table.mean())
    variance = float(spread.variance)
    effective = share * (1 - share) / variance if variance > 0 else float(count)
    effective = min(max(effective, 1e-9), float(count)) if share in (0.0, 1.0) else effective
    quantile = _quantile(spread, level)
    squared = quantile**2
    centre = (share + squared / (2 * effective)) / (1 + squared / effective)
    root = math.sqrt(share * (1 - share) / effective + squared / (4 * effective**2))
    half = quantile * root / (1 + squared / effective)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(min(low, share), max(high, share), level, _method(spread))


def spread_of(tables: list[Table], seeds: list[bool]) -> Spread:
    """Estimates the variance of the mean of one table, or of the difference of the means of two.

    Args:
        tables: One or two, (..., seeds, N); leading axes are separate comparisons.
        seeds: For each table, whether another seed would change the model.
    """
    count = tables[0].shape[-1]
    means = [table.mean(axis=-2) for table in tables]
    per_image = means[0] if len(means) == 1 else means[0] - means[1]
    images = _variance(per_image, axis=-1) / count
    between = np.zeros_like(images)
    between_squared = np.zeros_like(images)
    both = np.zeros_like(images)
    known = True
    for table, mean, changes in zip(tables, means, seeds, strict=True):
        number = table.shape[-2]
        if not changes:
            continue
        if number < 2:
            known = False
            continue
        accuracies = table.mean(axis=-1)
        own = accuracies.var(axis=-1, ddof=1) / number
        residual = table - mean[..., None, :] - accuracies[..., None]
        residual += mean.mean(axis=-1)[..., None, None]
        freedom = max(1, (number - 1) * (count - 1))
        both = both + (residual**2).sum(axis=(-2, -1)) / freedom / (count * number)
        between = between + own
        between_squared = between_squared + own**2 / (number - 1)
    # A seed's effect on all images differs from chance only if it exceeds the effect of the
    # images that the seed happened to change.
    freedom_images = math.inf if count >= _MANY else float(max(1, count - 1))
    excess = np.maximum(between - both, 0.0)
    variance = images + excess
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = 1 - _KNOWN * np.where(between > 0, both / between, 0.0)
        told = between_squared * kept + np.maximum(images - both, 0.0) ** 2 / freedom_images
        freedom_told = np.where(told > 0, variance**2 / told, np.inf)
    freedom = np.where(excess > 0, freedom_told, freedom_images)
    return Spread(np.asarray(variance), np.asarray(freedom), known)


def _half_width(spread: Spread, level: float, count: int) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level {level} out of range")
    variance = float(spread.variance)
    if variance <= 0:
        # No image distinguishes the two, but up to this share of others may (Clopper and Pearson).
        return float(1 - ((1 - level) / 2) ** (1 / count))
    return _quantile(spread, level) * math.sqrt(variance)


def _quantile(spread: Spread, level: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, float(spread.freedom)))


def _method(spread: Spread) -> str:
    return SEEDS_AND_IMAGES if spread.seeds else IMAGES_ALONE


def _variance(values: Table, axis: int) -> NDArray[np.float64]:
    if values.shape[axis] < 2:
        return np.zeros(values.shape[:-1])
    return np.asarray(values.var(axis=axis, ddof=1))


def _table(scores: ArrayLike) -> Table:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim not in (1, 2) or not np.isfinite(table).all():
        raise ValueError(f"scores must be finite, (N,) or (seeds, N): got shape {table.shape}")
    return np.atleast_2d(table)
