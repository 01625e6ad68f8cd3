"""Dimensions of a representation that do not discriminate, and their perturbation.

Source: Wang et al., "On Learning Discriminative Features from Synthesized Data for Self-Supervised
Fine-Grained Visual Recognition", arXiv 2407.14676, of which the abstract is followed: dimensions of
low variance fail to separate data, those of low Grad-CAM importance do not matter to the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.pretrain_config import DiscriminativeConfig


class DimensionStatistics(nn.Module):
    """Keeps running means of every dimension: value, square, and Grad-CAM importance.

    With decay m, a mean after t batches is the sum of m^(t-i) (1-m) x_i over 1 - m^t, as in Adam,
    so that the first batches are not mixed with the zeros of the beginning. Means are float64, or
    float32 once the module is: Apple's GPUs have no float64.

    Args:
        channels: Number of dimensions C.
        memory: Decay m.
    """

    values: Tensor
    squares: Tensor
    importances: Tensor
    weight: Tensor

    def __init__(self, channels: int, memory: float) -> None:
        super().__init__()
        self.memory = memory
        for name in ("values", "squares", "importances"):
            self.register_buffer(name, torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, vectors: Tensor, importance: Tensor) -> None:
        """Takes a batch into the means.

        Args:
            vectors: Representations (B, C).
            importance: (C,).
        """
        exact = vectors.detach().to(self.values.dtype)
        for mean, found in (
            (self.values, exact.mean(0)),
            (self.squares, exact.square().mean(0)),
            (self.importances, importance.detach().to(self.values.dtype)),
            (self.weight, torch.ones_like(self.weight)),
        ):
            mean.mul_(self.memory).add_(found, alpha=1 - self.memory)

    @property
    def variance(self) -> Tensor:
        """Returns the variance of every dimension over the data, (C,)."""
        mean, square = self.values / self.weight, self.squares / self.weight
        return (square - mean.square()).clamp(min=0)

    @property
    def importance(self) -> Tensor:
        """Returns the importance of every dimension, (C,)."""
        return self.importances / self.weight

    def not_discriminative(self, fraction: float, combine: str) -> Tensor:
        """Returns which dimensions do not discriminate, (C,) bool.

        Args:
            fraction: Share of the dimensions that are low by one criterion.
            combine: ``union`` or ``intersection`` of both criteria.
        """
        by_variance = lowest(self.variance, fraction)
        by_importance = lowest(self.importance, fraction)
        if combine == "union":
            return by_variance | by_importance
        return by_variance & by_importance


def lowest(values: Tensor, fraction: float) -> Tensor:
    """Returns which of (C,) values are among the lowest floor(fraction C), (C,) bool."""
    count = int(fraction * len(values) + 1e-9)
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[torch.argsort(values, stable=True)[:count]] = True
    return chosen


def perturbed(
    vectors: Tensor,
    chosen: Tensor,
    deviation: Tensor,
    config: DiscriminativeConfig,
    generator: torch.Generator,
) -> Tensor:
    """Returns representations with other values in the chosen dimensions.

    Args:
        vectors: (B, C).
        chosen: (C,) bool.
        deviation: (C,) deviation of every dimension over the data.
        config: Which change, and its strength.
        generator: Source of everything random, on the CPU.
    """
    count = len(vectors)
    if config.perturbation == "zero":
        other = torch.zeros_like(vectors)
    elif config.perturbation == "swap":
        # A step of 1 to B - 1 places: no image keeps its own values.
        step = int(torch.randint(1, max(2, count), (), generator=generator))
        order = torch.randperm(count, generator=generator)
        giver = torch.empty_like(order)
        giver[order] = order.roll(step)
        other = vectors[giver.to(vectors.device)]
    else:
        noise = torch.randn(vectors.shape, generator=generator).to(vectors)
        other = vectors + config.strength * deviation.to(vectors) * noise
    return torch.where(chosen, other, vectors)
