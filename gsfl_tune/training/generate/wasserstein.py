"""The critic of a conditional Wasserstein GAN with a gradient penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.generate._base import Critic, Draw
from gsfl_tune.training.generate.network import SLOPE, FeatureGenerator


def gradient_penalty(score: Callable[[Tensor], Tensor], between: Tensor) -> Tensor:
    """Computes the penalty of a score whose slope is not 1, ``mean((|grad score(x)| - 1)^2)``.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.

    Args:
        score: Gives (B,) scores of (B, D) features, each row by itself.
        between: (B, D) points between real and generated features.

    Returns:
        A scalar with a gradient for the weights of the score.
    """
    between = between.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    # At a slope of exactly 0 the gradient of a length is not defined.
    return ((slope.square().sum(dim=1) + 1e-12).sqrt() - 1).square().mean()


class WassersteinCritic(Critic):
    """Scores a feature x beside the condition s of its class, D(x, s).

    It minimises ``mean D(G(s, z), s) - mean D(x, s) + w mean((|grad_u D(u, s)| - 1)^2)`` with u =
    e x + (1 - e) G(s, z) and e of U(0, 1). The generator minimises ``-mean D(G(s, z), s)``.

    Source: Li et al., "Adversarial Feature Hallucination Networks for Few-Shot Learning", CVPR 2020
    (AFHN), with the penalty of Gulrajani et al., NeurIPS 2017.
    """

    def __init__(self, feature_dim: int, config: GenerateConfig) -> None:
        super().__init__(feature_dim, config)
        self.first = nn.Linear(2 * feature_dim, config.hidden_dim)
        self.second = nn.Linear(config.hidden_dim, 1)

    def score(self, features: Tensor, condition: Tensor) -> Tensor:
        """Returns (B,) scores of features (B, D) under their conditions (B, D)."""
        inputs = self.scale * torch.cat([features, condition], dim=1)
        scores: Tensor = self.second(functional.leaky_relu(self.first(inputs), SLOPE))
        return scores[:, 0]

    def critic_loss(self, generator: FeatureGenerator, draw: Draw) -> Tensor:
        """Returns the loss of the critic, see `Critic`."""
        with torch.no_grad():
            made = generator(draw.condition, draw.noise)
        return self.distance(draw, made, torch.rand_like(made[:, :1]))

    def distance(self, draw: Draw, made: Tensor, kept: Tensor) -> Tensor:
        """Returns the negative distance of real and generated features, with the penalty.

        Args:
            draw: The step.
            made: (B, D) generated features.
            kept: (B, 1) e, the share of the real feature in a point between both.
        """
        condition = draw.condition
        gap = self.score(made, condition).mean() - self.score(draw.real, condition).mean()
        if not self.config.gradient_penalty:
            return gap
        between = kept * draw.real + (1 - kept) * made
        penalty = gradient_penalty(lambda each: self.score(each, condition), between)
        return gap + self.config.gradient_penalty * penalty

    def generator_loss(self, generator: FeatureGenerator, draw: Draw, made: Tensor) -> Tensor:
        """Returns the loss of the generator, see `Critic`."""
        return -self.score(made, draw.condition).mean()
