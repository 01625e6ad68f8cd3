"""What every further change of a training image offers, and where its random numbers come from."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Generators by name, each a function of the entropy and its name alone.

    A transform that is switched on or off therefore changes no other.

    Args:
        entropy: Seed, epoch, and whatever else decides the numbers.
    """

    def __init__(self, *entropy: int) -> None:
        self._entropy = entropy
        self._generators: dict[str, torch.Generator] = {}

    def __call__(self, name: str) -> torch.Generator:
        """Returns the generator of a name; it goes on where it was left."""
        if name not in self._generators:
            entropy = [*self._entropy, zlib.crc32(name.encode())]
            state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
            self._generators[name] = torch.Generator().manual_seed(int(state) & (2**63 - 1))
        return self._generators[name]


class Transform(ABC):
    """A change of images after crop, flip and colour, before they are normalised.

    What an image becomes depends on its pixels and its own row of random numbers alone, so that
    batches may be divided over threads, processes and devices.

    Those of packages are made with a strength, 0 to 1, and the mean of the three channels that
    images are normalised with, of values in 0..1.

    Attributes:
        name: Of its stream of random numbers; of a package's, the name of its entry point.
        width: Random numbers an image.
    """

    name: str
    width: int

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        """Draws what decides how `count` images change: (count, width), uniform in 0..1."""
        return torch.rand((count, self.width), generator=generator)

    @abstractmethod
    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images.

        Args:
            images: (B, h, w, 3) float32 in 0..255, on any device; may be changed in place.
            drawn: (B, width), of `draw`, on the CPU.

        Returns:
            As `images`.
        """

    def matrices(self, drawn: Tensor, size: int) -> Tensor:
        """Tells where points go: (B, 2, 3) float32, of x and y in pixels; default: nowhere.

        Args:
            drawn: (B, width), of `draw`.
            size: Side of the images in pixels.
        """
        return torch.eye(2, 3).repeat(len(drawn), 1, 1)
