"""Fixed augmented views: what an image looks like in each of them, and which one an epoch shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.transforms import Streams


@dataclass(frozen=True)
class Views:
    """`data.views` of a data set: n changes of every image that never change themselves.

    Everything is a function of (seed, view, position in the pool), so that a cache of views can
    be computed in any order and by any process.

    Attributes:
        count: Views an image, at least 1.
        images: Images of the pool.
        seed: Seed of the changes: that of the data's split, as all trials share the views.
    """

    count: int
    images: int
    seed: int = 0

    def draw(self, view: int, augment: Augment) -> Tensor:
        """Draws what `Augment.apply` needs for one view of every image of the pool."""
        streams = Streams(self.seed, 2, view)
        return augment.draw_rows(self.images, self._generator(0, view), streams)

    def shown(self, epoch: int, positions: Tensor, place: int = 0) -> Tensor:
        """Which view of each image an epoch shows.

        In any `count` epochs on end an image shows each of its views once, and the images of
        one epoch show different ones.

        Args:
            epoch: Epoch of the stage, from 0.
            positions: (B,) positions in the pool.
            place: Which of several views of an image in a batch; below `count`, they differ.

        Returns:
            (B,) int64, 0..count-1.
        """
        start = torch.randint(self.count, (self.images,), generator=self._generator(1, 0))
        return (start[positions] + epoch + place) % self.count

    def _generator(self, stream: int, view: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, stream, view]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) & (2**63 - 1))
