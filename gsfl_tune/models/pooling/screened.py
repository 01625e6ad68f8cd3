"""The mean of a map, weighted by the places that a screening head has learned.

Source: Shu et al., "Learning Common Rationale to Improve Self-Supervised Representation for
Fine-Grained Visual Recognition Problems", CVPR 2023 (arXiv 2303.01669). The head is learned with
the backbone, without labels, see ``pretrain.lcr``; here it does not change any more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gsfl_tune.models._reads import full_precision, no_autocast
from gsfl_tune.models.pooling._base import Pooling

_TINY = 1e-7


class ScreenedPooling(Pooling):
    """Weights positions of a map by a screening head; D = C.

    With positions x_l, ``s_l = max_k relu(w_k' x_l + b_k)`` is scaled to 0..1 over the map and then
    divided by its sum: the vector is ``sum_l s_l x_l``. Where all s_l are the same it is the mean;
    so it is until `take` gives it a head.

    Args:
        channels: Number of channels C.
    """

    # The weight of a single position is 1, whatever was learned.
    fewest_positions = 2
    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels
        self.register_buffer("weight", torch.zeros(1, channels))
        self.register_buffer("bias", torch.zeros(1))

    def take(self, weight: Tensor, bias: Tensor) -> None:
        """Takes a screening head: (K, C) and (K,)."""
        self.weight, self.bias = weight.detach().clone(), bias.detach().clone()

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C)."""
        with no_autocast(maps.device.type):
            positions = full_precision(maps).flatten(2)
            kernels = self.weight.to(positions.dtype)
            found = (kernels @ positions + self.bias.to(positions.dtype)[:, None]).relu().amax(1)
            low, high = found.amin(1, keepdim=True), found.amax(1, keepdim=True)
            scaled = (found - low) / (high - low + _TINY)
            places = torch.where(high == low, torch.ones_like(scaled), scaled)
            shares = places / places.sum(1, keepdim=True)
            return (positions * shares[:, None]).sum(2)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *further: Any) -> None:
        # The number K of kernels is that of the head in the state.
        for name in ("weight", "bias"):
            if (given := state_dict.get(prefix + name)) is not None:
                here = getattr(self, name)
                setattr(self, name, here.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *further)
