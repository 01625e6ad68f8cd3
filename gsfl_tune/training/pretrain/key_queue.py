"""Keys of earlier images, which `moco` compares its queries with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_NOBODY = -1


class KeyQueue(nn.Module):
    """Remembers the last keys, and of which image each is.

    An image is shown again an epoch later. Where the queue is not much shorter than an epoch, it
    still holds the image's earlier key then, which is no negative: the loss leaves it out.

    Args:
        size: Number of keys; it begins with random ones of no image.
        dim: Size D of a key.
    """

    keys: Tensor
    positions: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("positions", torch.full((size,), _NOBODY))
        self.register_buffer("place", torch.zeros(1, dtype=torch.int64))

    def loss(
        self, queries: Tensor, keys: Tensor, positions: Tensor | None, temperature: float
    ) -> Tensor:
        """Returns the cross-entropy of each query's key among it and the keys of other images.

        Args:
            queries: (B, D).
            keys: (B, D), without gradient.
            positions: (B,) int64, which images they are of; None for images of no pretraining.
            temperature: Divides cosines.
        """
        queries, keys = functional.normalize(queries, dim=1), functional.normalize(keys, dim=1)
        # A copy, as the graph would refer to keys that `add` replaces before it goes back.
        others = queries @ self.keys.clone().T
        if positions is not None:
            own = positions[:, None] == self.positions
            others = others.masked_fill(own, float("-inf"))
        cosines = torch.cat([(queries * keys).sum(1, keepdim=True), others], dim=1)
        labels = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        return functional.cross_entropy(cosines / temperature, labels)

    @torch.no_grad()
    def add(self, keys: Tensor, positions: Tensor | None) -> None:
        """Replaces the oldest keys; for arguments see `loss`."""
        if positions is None:
            positions = torch.full((len(keys),), _NOBODY, device=keys.device)
        size = len(self.keys)
        keys, positions = keys[-size:], positions[-size:]
        places = (self.place + torch.arange(len(keys), device=keys.device)) % size
        self.keys[places] = functional.normalize(keys, dim=1).to(self.keys.dtype)
        self.positions[places] = positions
        self.place.copy_((self.place + len(keys)) % size)
