"""Attention over the positions of a map, with learned queries.

Sources: Lee et al., "Set Transformer", ICML 2019 (pooling by multi-head attention with a learned
query; so do CLIP, SigLIP and timm's ``AttentionPoolLatent``); Psomas et al., "Attention, Please!
Revisiting Attentive Probing Through the Lens of Efficiency", ICLR 2026 (arXiv 2506.10178).

A learned query needs no projections: in ``(W_q u)' W_k x`` of a head, u is a parameter too, so
that all of ``W_k' W_q u`` is one vector q of the size of x, and the projection of values is
followed by the first layer of the head. What is left, as in the second source, is a vector for each
head. Unlike there values stay as they are, queries start at zero, and x is normalised for scores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.models._reads import full_precision, no_autocast
from gsfl_tune.models.pooling._base import Pooling


class AttentionPooling(Pooling):
    """Weights positions of a map by learned queries; D = C.

    With positions x_l and the query q_m of head m, ``a_ml = softmax_l(q_m' LN(x_l) / sqrt(C))``.
    The channels are divided among the heads in their order: those of head m are ``sum_l a_ml x_l``.
    LN subtracts the mean of a position's channels and divides by their deviation. Queries start at
    zero, where this is the mean of the map.

    Args:
        channels: Number of channels C.
        heads: Number of heads; the greatest common divisor with C is taken.
    """

    starts_as = "average"
    takes_heads = True
    # The weight of a single position is 1, whatever is learned.
    fewest_positions = 2

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels
        self.queries = nn.Parameter(torch.zeros(math.gcd(channels, heads), channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C)."""
        with no_autocast(maps.device.type):
            positions = full_precision(maps).flatten(2).transpose(1, 2)
            queries = self.queries.to(positions.dtype)
            known = F.layer_norm(positions, (self.channels,))
            weights = (known @ queries.T / self.channels**0.5).softmax(dim=1)
            values = positions.unflatten(2, (queries.shape[0], -1))
            return (weights.unsqueeze(3) * values).sum(dim=1).flatten(1)
