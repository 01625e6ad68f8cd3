"""Draws images and, of the same classes, what the generator makes features from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Pairs:
    """Draws pairs of different images of one class.

    Classes of a single image are left out: they do not show how images of a class differ.

    Args:
        positions: (N,) positions of the training images.
        labels: Labels of all images, indexed by ``positions``.

    Raises:
        ValueError: If no class has two images.
    """

    def __init__(self, positions: np.ndarray, labels: np.ndarray) -> None:
        own = labels[positions]
        sizes = np.bincount(own)
        kept = np.flatnonzero(sizes[own] > 1)
        if not len(kept):
            raise ValueError("no class has two images")
        # Images of a class one after the other: a partner is some places further in its class.
        self._sorted = torch.from_numpy(positions[kept[np.argsort(own[kept], kind="stable")]])
        classes = torch.from_numpy(np.sort(own[kept]))
        _, counts = classes.unique_consecutive(return_counts=True)
        self._size = counts.repeat_interleave(counts)
        self._start = (counts.cumsum(0) - counts).repeat_interleave(counts)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws pairs, every image as often as every other one.

        Args:
            count: B.
            generator: Random generator.

        Returns:
            (2, B) positions: images, and for each another image of its class.
        """
        first = torch.randint(len(self._sorted), (count,), generator=generator)
        size, start = self._size[first], self._start[first]
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        further = 1 + (share * (size - 1)).long()
        second = start + (first - start + further) % size
        return self._sorted[torch.stack([first, second])]
