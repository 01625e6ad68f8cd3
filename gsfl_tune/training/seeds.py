"""Separate seeds for every epoch, every process and every part of a network."""

from __future__ import annotations

import zlib

import numpy as np


def mix(seed: int, epoch: int) -> int:
    """Makes a separate seed for every epoch; neighbouring seeds give unrelated results."""
    return int(
        np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )


def named_seed(seed: int, name: str) -> int:
    """Makes a seed of its own for each name."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
