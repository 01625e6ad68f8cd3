"""Compact bilinear pooling (Tensor Sketch).

Source: Gao, Beijbom, Zhang and Darrell, "Compact Bilinear Pooling", CVPR 2016, algorithm 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.models.pooling._base import Pooling, products, signed_sqrt


class CompactBilinearPooling(Pooling):
    """Takes the count sketch of the Gram matrix divided by h * w, then the signed square root.

    The sketch of an outer product is the circular convolution of two count sketches, usually
    computed by FFT at every position. The sum of these outer products over positions is the Gram
    matrix. So the same vector results from one small matrix product and one scatter: entry (i, j)
    goes with sign s1_i s2_j into bin (h1_i + h2_j) mod D. The signed square root acts on the
    sketch, as in the source, and not on the Gram matrix: it does not commute with the sums in a
    bin. Of two streams it is the sketch of their products, with the hashes h1 for the channels of
    the first and h2 for those of the second.

    Args:
        channels: Number of channels C, of both streams together.
        dim: Number of bins D.
        seed: Seed of the hashes, which are saved buffers.
        second: How many of the channels, the last ones, are of a second stream.
    """

    bins: Tensor
    signs: Tensor

    projected_channels = 512
    fewest_positions = 2
    takes_dim = True
    takes_streams = True

    def __init__(self, channels: int, dim: int = 8192, seed: int = 0, second: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.second = second
        self.dim = dim
        generator = torch.Generator(device="cpu").manual_seed(seed)
        bins = torch.randint(dim, (2, channels), generator=generator, device="cpu")
        signs = torch.randint(2, (2, channels), generator=generator, device="cpu") * 2 - 1
        self.register_buffer("bins", bins)
        self.register_buffer("signs", signs.to(torch.int8))

    def sketch(self, maps: Tensor) -> Tensor:
        """Returns the (B, D) sketch of maps (B, C, h, w), before the signed square root."""
        matrix = products(maps, self.second)
        rows, columns = matrix.shape[1], matrix.shape[2]
        signs = self.signs.to(matrix.dtype)
        values = (matrix * torch.outer(signs[0, :rows], signs[1, -columns:])).flatten(1)
        bins = ((self.bins[0, :rows, None] + self.bins[1, -columns:]) % self.dim).flatten()
        # Not len(values): an exporter would fix the batch size to that number.
        return values.new_zeros(values.shape[0], self.dim).index_add(1, bins, values)

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, D)."""
        return signed_sqrt(self.sketch(maps))
