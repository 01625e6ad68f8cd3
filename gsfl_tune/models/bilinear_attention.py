"""Attention maps of a network's own, and what they see, joined to the global feature.

Sources: Rao et al., "Counterfactual Attention Learning for Fine-Grained Visual Categorization and
Re-identification", ICCV 2021 (CAL), section 3.1; Hu et al., "See Better Before Looking Closer:
Weakly Supervised Data Augmentation Network for Fine-Grained Visual Classification", arXiv
1901.09891 (WS-DAN), equations 1 and 2: a convolution with ReLU gives M attention maps, each of
which weighs the feature map before its mean over the positions.

Other than in the sources:

- What the maps see is projected and added to the global feature, in place of a concatenation of
  M vectors of all channels in front of a classifier: any pooling and head stand behind it, and an
  untrained module leaves the network as it is.
- The norm of the attention layer is of each image (group norm, Wu and He, ECCV 2018), not of a
  batch, so that batches may be trained in pieces and by several processes.
- The signed square root has a bounded slope at 0, see `gsfl_tune.models.pooling.signed_sqrt`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models._reads import full_precision, no_autocast, of_unit_size
from gsfl_tune.models.pooling import signed_sqrt


@dataclass(frozen=True)
class AttentionSettings:
    """Holds the sizes of a `BilinearAttention`.

    Attributes:
        count: M, number of attention maps.
        dim: D of the global features.
        width: E, channels of what they weigh.
    """

    count: int
    dim: int
    width: int = 64


class BilinearAttention(nn.Module):
    """Joins what attention maps see on a map to the global features.

    With the map x of n positions, divided by its root mean square over an image,

        A = ReLU(GroupNorm(K x))                  M maps, not negative
        p_m = 1/n sum over l of A_ml V x_l        u = (signed roots of p_1, ..., p_M), length 1
        f' = f + W u / sqrt(D), in unit length

    V x has E channels; p_m is a projection of what the sources pool. W starts at zero: f' is f
    until it has been learnt.

    Args:
        channels: C of the map.
        settings: Sizes.
        seed: Of its weights.
    """

    def __init__(self, channels: int, settings: AttentionSettings, seed: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.settings = settings
        count, width = settings.count, settings.width
        # A training's other random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.attend = nn.Conv2d(channels, count, 1, bias=False)
            self.describe = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.GroupNorm(1, count)
        self.join = nn.Parameter(torch.zeros(count * width, settings.dim))

    def forward(
        self, unit: Tensor, maps: Tensor, instead: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns joint features (B, D), of any length, and the attention (B, M, h, w) used.

        Args:
            unit: (B, D) global unit features.
            maps: (B, C, h, w).
            instead: (B, M, h, w) attention in place of the module's own.
        """
        with no_autocast(maps.device.type):
            values = of_unit_size(maps).to(self.join.dtype)
            attention = self._attention(values) if instead is None else full_precision(instead)
            described = full_precision(self.describe(values)).flatten(2)
            seen = attention.flatten(2) @ described.transpose(1, 2) / described.shape[2]
            vector = functional.normalize(signed_sqrt(seen.flatten(1)), dim=1)
            added = full_precision(vector.to(self.join.dtype) @ self.join)
            return full_precision(unit) + added / math.sqrt(self.settings.dim), attention

    def _attention(self, values: Tensor) -> Tensor:
        scores = full_precision(self.attend(values))
        gain, bias = (full_precision(each) for each in (self.norm.weight, self.norm.bias))
        return functional.group_norm(scores, 1, gain, bias, self.norm.eps).relu()


def attention_size(channels: int, settings: AttentionSettings) -> int:
    """Counts the parameters of a `BilinearAttention`."""
    count, width = settings.count, settings.width
    return channels * (count + width) + 2 * count + count * width * settings.dim


def attention_work(channels: int, positions: int, settings: AttentionSettings) -> float:
    """Returns the operations of a `BilinearAttention` for an image.

    Args:
        channels: C of the map.
        positions: Of the map.
        settings: Sizes.
    """
    count, width = settings.count, settings.width
    place = channels * (count + width) + count * width
    return 2.0 * (positions * place + count * width * settings.dim)
