"""Gradient reversal: what a classifier learns to read off a part, the part unlearns.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015,
sections 3.1 and 4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.losses._base import LossTerm, Sizes


class ReversedClassifier(LossTerm):
    """Trains a small classifier (linear, ReLU, linear) whose gradient reaches a part reversed.

    Args:
        hidden: Width of the classifier.
    """

    classifier: nn.Sequential

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = hidden

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier.

        Raises:
            ValueError: If there are no groups.
        """
        if sizes.groups is None:
            raise ValueError("a classifier whose gradient is reversed needs groups of the classes")
        self.classifier = nn.Sequential(
            nn.Linear(sizes.latent_dim, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.outputs(sizes.groups)),
        )

    def outputs(self, groups: Tensor) -> int:
        """Returns how many answers the classifier has, for the groups (C,) of the classes."""
        raise NotImplementedError

    def scores(self, part: Tensor, progress: float) -> Tensor:
        """Returns what the classifier says of a part, whose gradient is reversed.

        Args:
            part: (B, H).
            progress: Share p of the training that is done. As published, the gradient is multiplied
                by -lambda, which grows with it: lambda = 2 / (1 + exp(-10 p)) - 1.
        """
        strength = 2 / (1 + math.exp(-10 * progress)) - 1
        found: Tensor = self.classifier(_Reversed.apply(part, strength))
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
