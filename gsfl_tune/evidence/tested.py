"""The predictions that findings are looked for in, and what a single training leaves open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.yardstick import Yardstick
from gsfl_tune.run.results import Difference
from gsfl_tune.training import Predictions

SEVERITIES = ("severe", "warning", "note")

Logits = NDArray[np.floating]

# Quantile of a normal deviate: 95 % lie between it and its negative.
_NORMAL = 1.96


@dataclass(frozen=True)
class Tested:
    """Holds the models' logits of the test images, before any temperature.

    Attributes:
        labels: (N,) classes.
        winner: (seeds, N, C) logits.
        control: (seeds, N, C) logits; None without a control.
        probe: (N, C) logits; None without a probe.
    """

    __test__ = False  # pytest takes the name for a class of tests

    labels: NDArray[np.int64]
    winner: Logits
    control: Logits | None = None
    probe: Logits | None = None

    @classmethod
    def of(
        cls,
        winner: Sequence[Predictions],
        control: Sequence[Predictions],
        yardstick: Yardstick,
    ) -> Tested:
        """Builds it from predictions, one per seed; `control` may be empty."""
        return cls(
            np.asarray(winner[0].labels, dtype=np.int64),
            np.stack([each.logits for each in winner]),
            np.stack([each.logits for each in control]) if control else None,
            yardstick.logits,
        )


def lowered(severity: str, covers_seeds: bool) -> str:
    """Returns the severity of a paired comparison: one step lower if it covers no seeds.

    With one training each, an interval covers the images alone. Of the same configuration trained
    twice it then excludes 0 in up to 40 % of the cases (``benchmarks/results/coverage.md``).
    """
    return severity if covers_seeds else SEVERITIES[SEVERITIES.index(severity) + 1]


def wilson_upper(share: float, count: int) -> float:
    """Returns the upper end of Wilson's 95 % interval of a share.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    JASA 1927. Unlike p + 1.96 sqrt(p (1 - p) / n) it does not shrink to one point at 0 and 1.

    Args:
        share: The share that was seen, 0 to 1.
        count: Number of images that it is a share of; at least 1.
    """
    centre = share + _NORMAL**2 / (2 * count)
    root = math.sqrt(share * (1 - share) / count + _NORMAL**2 / (4 * count**2))
    return (centre + _NORMAL * root) / (1 + _NORMAL**2 / count)


def aside(covers_seeds: bool) -> str:
    """Returns the end of a comparison's sentence: what is open if it covers no seeds."""
    if covers_seeds:
        return ""
    return (
        " This is one seed: the interval covers these trainings alone, and whether it holds for "
        "others is not settled."
    )


def numbers_of(found: Difference) -> dict[str, Any]:
    """Returns a difference and its interval as the numbers of a finding."""
    return {"mean": found.mean, "low": found.interval.low, "high": found.interval.high}
