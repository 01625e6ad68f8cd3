"""Separate seeds for every epoch and every process."""

from __future__ import annotations

import numpy as np


def mix(seed: int, epoch: int) -> int:
    """Makes a separate seed for every epoch; neighbouring seeds give unrelated results."""
    return int(
        np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
