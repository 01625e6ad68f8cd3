"""Findings about the learning curves of finished trials: falling, still rising, crossing late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gsfl_tune.run.results import Finding

# Shorter curves do not tell a trend from the noise of an epoch.
_FEWEST_EPOCHS = 10
# With fewer trials, all of them do the same by chance.
_FEWEST_TRIALS = 5
# Spearman's correlation of fewer trials is within chance of anything.
_FEWEST_RANKED = 8
# Parts of what a curve gained: a fall below it costs little, a rise below it gains little.
_FALL, _RISE = 0.1, 0.02
# Of the noise of a mean: a fall is that from the highest of many means, so it needs more.
_SURE_FALL, _SURE_RISE = 4.0, 2.0

Values = NDArray[np.float64]


def of_curves(curves: Sequence[Sequence[float]], sign: float) -> Iterator[Finding]:
    """Finds that trials fell again before their end, or that all of them still rose.

    Args:
        curves: Of every trial that came to its end, the search's metric by epoch of its last stage.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    known = [sign * np.asarray(each, dtype=np.float64) for each in curves]
    known = [each for each in known if len(each) >= _FEWEST_EPOCHS]
    if len(known) < _FEWEST_TRIALS:
        return
    falls = [fall for each in known if (fall := _fall(each)) > 0]
    if 2 * len(falls) > len(known):
        yield Finding(
            "curves_fall_again",
            "note",
            {"trials": len(falls), "of": len(known), "fall": float(np.mean(falls))},
            f"{len(falls)} of {len(known)} finished trials were better before their end, on "
            f"average by {np.mean(falls):.3g}, which is a sign of overfitting. Fewer epochs or "
            "more dropout may help.",
        )
    rises = [_rise(each) for each in known]
    if min(rises) > 0:
        yield Finding(
            "curves_still_rise",
            "note",
            {"trials": len(known), "rise": float(np.mean(rises))},
            f"All {len(known)} finished trials still improved at their last epochs, on average by "
            f"{np.mean(rises):.3g} in the last fifth: more epochs may give better ones.",
        )


def of_crossings(curves: Sequence[Sequence[float]], sign: float) -> Iterator[Finding]:
    """Finds that finished trials had no order at half of their epochs, as of `of_curves`."""
    lengths = [len(each) for each in curves]
    most = max(set(lengths), key=lengths.count, default=0)
    # Trials of other lengths had other learning rates at the same epoch.
    known = np.asarray([each for each in curves if len(each) == most], dtype=np.float64)
    if most < _FEWEST_EPOCHS or len(known) < _FEWEST_RANKED:
        return
    half, end = sign * known[:, most // 2 - 1], sign * known[:, -1]
    if np.ptp(half) == 0 or np.ptp(end) == 0:
        return  # no order to compare
    correlation = float(spearmanr(half, end).statistic)
    if correlation <= 0:
        yield Finding(
            "curves_cross_late",
            "note",
            {"correlation": correlation, "trials": len(known), "epoch": most // 2},
            f"Curves cross late: of {len(known)} finished trials the order at epoch {most // 2} "
            f"of the {most} of the last stage says nothing about that at the end (rank correlation "
            f"{correlation:.2f}). A rung at or before it may stop good trials by chance.",
        )


def _fall(curve: Values) -> float:
    """Returns how far the end lies below the best; 0 if that may be noise, or is little."""
    width = max(2, len(curve) // 5)
    means = np.convolve(curve, np.full(width, 1 / width), mode="valid")
    fall, gained = float(means.max() - means[-1]), float(means.max() - means.min())
    sure = fall > _SURE_FALL * _noise(curve) / np.sqrt(width)
    return fall if sure and fall > _FALL * gained else 0.0


def _rise(curve: Values) -> float:
    """Returns the rise of the last fifth above the one before; 0 as in `_fall`."""
    width = max(2, len(curve) // 5)
    rise = float(curve[-width:].mean() - curve[-2 * width : -width].mean())
    sure = rise > _SURE_RISE * _noise(curve) * np.sqrt(2 / width)
    return rise if sure and rise > _RISE * float(np.ptp(curve)) else 0.0


def _noise(curve: Values) -> float:
    """Returns the deviation of an epoch's value from its trend.

    Second differences of a straight line are 0; their variance is six times that of the noise. The
    median leaves out the steep beginning.
    """
    return float(np.median(np.abs(np.diff(curve, 2))) / 0.6745 / np.sqrt(6))
