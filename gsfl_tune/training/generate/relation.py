"""A critic that compares pairs of features, with a triplet loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.generate._base import Critic, Draw
from gsfl_tune.training.generate.network import SLOPE, FeatureGenerator


class RelationCritic(Critic):
    """Scores how well two features a, b belong together, R(a, b).

    R is a network of two layers of ``|a - b|`` and ``a b``, element by element, so the order does
    not matter. With the condition s of a class as the anchor and a margin m, the critic minimises
    ``mean max(0, m + R(s, G(s, z)) - R(s, x))`` and the generator the same with both pairs swapped,
    ``mean max(0, m + R(s, x) - R(s, G(s, z)))``.

    Source: Wu et al., "When Relation Networks meet GANs: Relation GANs with Triplet Loss", arXiv
    2002.10174: pairs of one distribution against pairs of two, by a triplet loss. The layers and
    the anchor of the same class are choices of this project.
    """

    def __init__(self, feature_dim: int, config: GenerateConfig) -> None:
        super().__init__(feature_dim, config)
        self.first = nn.Linear(2 * feature_dim, config.hidden_dim)
        self.second = nn.Linear(config.hidden_dim, 1)

    def score(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns (B,) scores of pairs of features, each (B, D)."""
        inputs = torch.cat([self.scale * (one - other).abs(), self.scale**2 * one * other], dim=1)
        scores: Tensor = self.second(functional.leaky_relu(self.first(inputs), SLOPE))
        return scores[:, 0]

    def critic_loss(self, generator: FeatureGenerator, draw: Draw) -> Tensor:
        """Returns the loss of the critic, see `Critic`."""
        with torch.no_grad():
            made = generator(draw.condition, draw.noise)
        gap = self.score(draw.condition, made) - self.score(draw.condition, draw.real)
        return functional.relu(self.config.margin + gap).mean()

    def generator_loss(self, generator: FeatureGenerator, draw: Draw, made: Tensor) -> Tensor:
        """Returns the loss of the generator, see `Critic`."""
        gap = self.score(draw.condition, draw.real) - self.score(draw.condition, made)
        return functional.relu(self.config.margin + gap).mean()
