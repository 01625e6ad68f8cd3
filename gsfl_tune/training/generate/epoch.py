"""An epoch of the head stage with generated features among those of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.transforms import Streams
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.generate.fill import made_count, supports
from gsfl_tune.training.generate.network import FeatureGenerator


@dataclass(frozen=True)
class FilledEpoch:
    """Holds the order of an epoch of N images and M generated features.

    Attributes:
        order: (N + M,) positions of the images, or of what a feature is generated from.
        made: (N + M,) whether a feature is generated.
        noise: (M, Z) noise of the generated features, in their order.
    """

    order: Tensor
    made: Tensor
    noise: Tensor

    @classmethod
    def of(
        cls,
        drawn: np.ndarray,
        positions: np.ndarray,
        labels: np.ndarray,
        *,
        share: float,
        noise_dim: int,
        seed: int,
    ) -> FilledEpoch:
        """Adds generated features of the smallest classes to the images of an epoch.

        Args:
            drawn: (N,) positions of the images that the epoch shows.
            positions: Positions of all training images.
            labels: Labels of all images, indexed by both.
            share: M / N.
            noise_dim: Z.
            seed: Of the epoch.
        """
        streams = Streams(seed)
        count = made_count(len(drawn), share)
        added = supports(drawn, positions, labels, count, streams("generated classes"))
        order = torch.from_numpy(np.concatenate([drawn, added]))
        mixed = torch.randperm(len(order), generator=streams("generated order"))
        noise = torch.randn((count, noise_dim), generator=streams("generated noise"))
        return cls(order[mixed], mixed >= len(drawn), noise)

    @torch.no_grad()
    def batches(
        self,
        table: FeatureTable,
        size: int,
        shown: Tensor,
        generator: FeatureGenerator,
        labels: Tensor,
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields batches as `FeatureTable.batches` does, with the generated features in place.

        Args:
            table: Features of all images.
            size: Features per batch.
            shown: (V, N + M) views of each position. All views of a generated feature have the same
                noise.
            generator: Makes the features.
            labels: Labels of all images, on the device of the table.
        """
        noise = self.noise.split([int(each.sum()) for each in self.made.split(size)])
        read = table.batches(self.order, size, shown, sort=False)
        for (views, positions), made, own in zip(read, self.made.split(size), noise, strict=True):
            rows = made.nonzero()[:, 0].to(positions.device)
            classes, drawn = labels[positions[rows]], own.to(positions.device)
            for each in views if len(rows) else ():
                # Rows were gathered for this batch: nothing else sees the change.
                each[rows] = generator(generator.condition(each[rows], classes), drawn)
            yield views, positions
