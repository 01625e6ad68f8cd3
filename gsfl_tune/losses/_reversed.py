"""Gradient reversal: what a classifier learns to read off a part, the part unlearns.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015,
sections 3.1 and 4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def reversed_gradient(values: Tensor, progress: float) -> Tensor:
    """Returns values as they are, whose gradients are multiplied by -lambda.

    Args:
        values: Of any shape.
        progress: Share p of the training that is done. As published, lambda grows with it from 0
            to 1: 2 / (1 + exp(-10 p)) - 1.
    """
    strength = 2 / (1 + math.exp(-10 * progress)) - 1
    found: Tensor = _Reversed.apply(values, strength)
    return found


class _Reversed(torch.autograd.Function):
    """Passes values as they are, and gradients times -strength."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
