"""Grad-CAM of a self-supervised loss: which dimensions and which places matter to it.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2, with the loss in place of a
class score. The mean over positions of gradient times activation of a dimension is its part of the
map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradients(loss: Tensor, maps: Sequence[Tensor], count: int | None = None) -> list[Tensor]:
    """Returns gradients of a loss by maps (B, C, h, w) of its graph, which is kept.

    The loss is a mean over the batch; the gradients are those of each image's own part, times B.

    Args:
        loss: The loss.
        maps: The maps.
        count: Images of the batch, where the maps are those of a part of them.
    """
    found = torch.autograd.grad(loss, list(maps), retain_graph=True)
    return [gradient * (count or len(gradient)) for gradient in found]


def importance(maps: Tensor, gradient: Tensor, kind: str = "absolute") -> Tensor:
    """Returns the importance of every dimension, (C,): a mean over images.

    Args:
        maps: (B, C, h, w).
        gradient: Of the loss by `maps`.
        kind: ``absolute``: the size of the mean of gradient times activation over positions;
            ``positive``: only where it lowers the loss, that is, raises the agreement.
    """
    parts = (gradient * maps.detach()).mean(dim=(2, 3))
    return parts.abs().mean(0) if kind == "absolute" else (-parts).relu().mean(0)


def cam(maps: Tensor, gradient: Tensor, objective: str = "loss") -> Tensor:
    """Returns Grad-CAM maps (B, h, w), not negative, without gradient.

    Args:
        maps: (B, C, h, w).
        gradient: Of the loss by `maps`.
        objective: ``loss``, or ``agreement`` for its negative.
    """
    sign = 1.0 if objective == "loss" else -1.0
    weights = sign * gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).relu()
