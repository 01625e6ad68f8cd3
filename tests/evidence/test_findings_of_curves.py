"""Findings about learning curves: noise and a good schedule give none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gsfl_tune.evidence import Searched
from gsfl_tune.evidence.findings_of_curves import of_crossings

from .test_findings import codes, world

EPOCHS = np.arange(1, 31)


def curves(shape: Callable[[np.ndarray], np.ndarray], count: int = 10, noise: float = 0.005):
    """Curves of one shape, each at its own height, with the noise of an epoch."""
    generator = np.random.default_rng(0)
    return [
        (shape(EPOCHS) + 0.01 * number + generator.normal(0, noise, len(EPOCHS))).tolist()
        for number in range(count)
    ]


def settled(epoch: np.ndarray) -> np.ndarray:
    return 0.8 * (1 - np.exp(-epoch / 4))


def falling(epoch: np.ndarray) -> np.ndarray:
    return settled(epoch) - 0.01 * np.maximum(0, epoch - 12)


def rising(epoch: np.ndarray) -> np.ndarray:
    return 0.8 * epoch / 30


def test_curves_that_fall_again():
    assert codes(world(), searched=Searched(curves=curves(falling))) == ["curves_fall_again"]
    # A loss that rises again is the same, one that falls on is none.
    loss = [[-value for value in each] for each in curves(falling)]
    assert codes(world(), searched=Searched(curves=loss, sign=-1)) == ["curves_fall_again"]
    # A few that fall are what a search tries out.
    mixed = curves(settled, 6) + curves(falling, 4)
    assert codes(world(), searched=Searched(curves=mixed)) == []


def test_curves_that_all_still_rise():
    assert codes(world(), searched=Searched(curves=curves(rising))) == ["curves_still_rise"]
    one_is_done = curves(rising, 9) + curves(settled, 1)
    assert codes(world(), searched=Searched(curves=one_is_done)) == []


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.02])
@pytest.mark.parametrize("seed", range(5))
def test_curves_that_settle_are_no_finding_whatever_their_noise(noise, seed):
    generator = np.random.default_rng(seed)
    flat = [
        (settled(EPOCHS) + 0.1 * number + generator.normal(0, noise, len(EPOCHS))).tolist()
        for number in range(10)
    ]
    assert codes(world(), searched=Searched(curves=flat)) == []


def test_few_or_short_curves_tell_nothing():
    assert codes(world(), searched=Searched(curves=curves(falling, 4))) == []
    short = [each[:9] for each in curves(rising)]
    assert codes(world(), searched=Searched(curves=short)) == []


def test_curves_that_cross_late():
    # The one that is ahead at half of its epochs is behind at the end.
    crossing = [
        (settled(EPOCHS) + 0.01 * number * np.where(EPOCHS > 20, 1, -1)).tolist()
        for number in range(8)
    ]
    assert codes(world(), searched=Searched(curves=crossing)) == ["curves_cross_late"]
    # Epochs of the chart, where the finding is shown too, are those of all stages.
    (found,) = of_crossings(crossing, 1.0)
    assert "the order at epoch 15 of the 30 of the last stage says nothing" in found.sentence
    assert codes(world(), searched=Searched(curves=crossing[:7])) == []
    assert codes(world(), searched=Searched(curves=curves(settled))) == []
    # The rungs that decided nothing are told once.
    falling_rungs = [{0: 0.1 * number, 3: 0.9 - 0.1 * number} for number in range(8)]
    both = Searched(curves=crossing, rungs=falling_rungs)
    assert codes(world(), searched=both) == ["rungs_do_not_agree"]
