"""Fixed augmented views of each image, and the view that each epoch shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.transforms import Streams


@dataclass(frozen=True)
class Views:
    """Defines the views of ``data.views``: n fixed changes of every image.

    Everything is a function of (seed, view, position in the pool). So a cache of views can be
    computed in any order and by any process.

    Attributes:
        count: Views per image, at least 1.
        images: Number of images in the pool.
        seed: Seed of the changes. It is the seed of the data's split, as all trials share the
            views.
    """

    count: int
    images: int
    seed: int = 0

    def draw(self, view: int, augment: Augment) -> Tensor:
        """Draws the random numbers of `Augment.apply` for one view of every image of the pool."""
        streams = Streams(self.seed, 2, view)
        return augment.draw_rows(self.images, self._generator(0, view), streams)

    def shown(self, epoch: int, positions: Tensor, place: int = 0) -> Tensor:
        """Returns the view of each image in an epoch.

        In any `count` consecutive epochs an image shows each view once. Different images show
        different views in an epoch.

        Args:
            epoch: Epoch of the stage, from 0.
            positions: (B,) positions in the pool.
            place: Number of the view among several of an image in a batch; below `count` they
                differ.

        Returns:
            (B,) int64, 0..count-1.
        """
        start = torch.randint(self.count, (self.images,), generator=self._generator(1, 0))
        return (start[positions] + epoch + place) % self.count

    def _generator(self, stream: int, view: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, stream, view]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) & (2**63 - 1))
