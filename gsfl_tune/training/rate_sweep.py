"""Learning rates that rise from step to step, and the losses that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

# Weight of the past in the smoothed loss, as in fastai.
_SMOOTHING = 0.9
# A loss of this many times the lowest one has diverged.
_DIVERGED = 4.0
# Losses of the first steps say more of the batch than of the rate.
_LEAST_STEPS = 10


class SweepOver(Exception):
    """Raised by a step when a sweep has seen all rates, or the loss has diverged."""


class RateSweep:
    """Decides the learning rates of a stage in place of its schedule, and keeps the losses.

    The rate rises geometrically (L. N. Smith, "Cyclical Learning Rates for Training Neural
    Networks", WACV 2017, section 3.3; there linearly). Rates of other parameter groups keep their
    ratio to it.

    Args:
        peak: The stage's learning rate, to which the optimiser's groups are related.
        low: Rate of the first step.
        high: Rate of the last step.
        steps: Number of steps.
    """

    def __init__(self, peak: float, low: float, high: float, steps: int) -> None:
        self.peak = peak
        self.steps = steps
        self._planned = np.geomspace(low, high, steps)
        self._losses: list[float] = []
        self._loss: Tensor | None = None
        self._smoothed: list[float] = []
        self._average = 0.0

    @property
    def rates(self) -> list[float]:
        """Returns the rates of the steps so far."""
        return [float(rate) for rate in self._planned[: len(self._losses)]]

    @property
    def losses(self) -> list[float]:
        """Returns the loss of each step, before its update."""
        return list(self._losses)

    @property
    def smoothed(self) -> list[float]:
        """Returns the exponential moving average of the losses, without bias."""
        return list(self._smoothed)

    def saw(self, loss: Tensor, share: float) -> None:
        """Adds the loss of a micro-batch, which is a share of the step."""
        part = loss.detach() * share
        self._loss = part if self._loss is None else self._loss + part

    def factor(self) -> float:
        """Returns the factor of all rates for the update of this step.

        Raises:
            SweepOver: After the last step, or when the loss has diverged.
        """
        assert self._loss is not None
        loss, self._loss = float(self._loss), None
        if not math.isfinite(loss) or len(self._losses) == self.steps:
            raise SweepOver
        self._losses.append(loss)
        self._average = _SMOOTHING * self._average + (1 - _SMOOTHING) * loss
        smoothed = self._average / (1 - _SMOOTHING ** len(self._losses))
        self._smoothed.append(smoothed)
        lowest = min(self._smoothed)
        # Losses may be below 0, if a term is.
        if len(self._losses) > _LEAST_STEPS and smoothed > lowest + (_DIVERGED - 1) * abs(lowest):
            raise SweepOver
        return float(self._planned[len(self._losses) - 1] / self.peak)


def steepest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Returns the rate at which the smoothed loss falls fastest, by the logarithm of the rate.

    Args:
        rates: (N,) rising rates.
        smoothed: (N,) losses.

    Returns:
        A rate before that of the lowest loss; None where the loss never falls.
    """
    end = int(np.argmin(smoothed)) + 1
    start = min(_LEAST_STEPS, end // 2)
    if end - start < 4:
        return None
    # The slope at either end is that of two points only.
    slopes = np.gradient(np.asarray(smoothed[start:end]), np.log(np.asarray(rates[start:end])))
    place = 1 + int(np.argmin(slopes[1:-1]))
    return float(rates[start + place]) if slopes[place] < 0 else None


def below_minimum(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """Returns a tenth of the rate with the lowest smoothed loss."""
    return float(rates[int(np.argmin(smoothed))]) / 10
