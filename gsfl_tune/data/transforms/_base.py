"""The interface of further transforms, and their random streams."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Gives generators by name, each a function of only the entropy and its name.

    So a transform that is switched on or off changes no other one.

    Args:
        entropy: Seed, epoch, and all else that decides the numbers.
    """

    def __init__(self, *entropy: int) -> None:
        self._entropy = entropy
        self._generators: dict[str, torch.Generator] = {}

    def __call__(self, name: str) -> torch.Generator:
        """Returns the generator of a name, in its present state."""
        if name not in self._generators:
            entropy = [*self._entropy, zlib.crc32(name.encode())]
            state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
            self._generators[name] = torch.Generator().manual_seed(int(state) & (2**63 - 1))
        return self._generators[name]


class Transform(ABC):
    """Changes images after crop, flip and colour, before normalisation.

    A result depends only on the image's pixels and its own row of random numbers. So batches may be
    divided over threads, processes and devices.

    Transforms of packages are made with a strength, 0 to 1, and the mean of the three channels for
    normalisation, of values in 0..1.

    Attributes:
        name: Name of its random stream; for a package, the name of its entry point.
        width: Random numbers per image.
    """

    name: str
    width: int

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        """Draws random numbers for `count` images: (count, width), uniform in 0..1."""
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
        """Returns the maps of points: (B, 2, 3) float32, for x and y in pixels; default: no move.

        Args:
            drawn: (B, width), of `draw`.
            size: Side of the images in pixels.
        """
        return torch.eye(2, 3).repeat(len(drawn), 1, 1)
