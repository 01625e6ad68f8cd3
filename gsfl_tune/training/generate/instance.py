"""A critic that also tells every feature from all others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.generate._base import Draw
from gsfl_tune.training.generate.network import SLOPE, FeatureGenerator
from gsfl_tune.training.generate.wasserstein import WassersteinCritic

# Size of what is compared.
_PROJECTION = 64
# Length of the random change of a real feature, whose own length is 1.
_CHANGE = 0.2
# Deviation of the change of the noise, whose own is 1.
_NOISE_CHANGE = 0.2


def instance_loss(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Computes the cross-entropy of which of B instances another view is of.

    ``mean_i -log(exp(p_i q_i / T) / sum_j exp(p_i q_j / T))``: InfoNCE.

    Args:
        one: (B, P) projections p of length 1.
        other: (B, P) projections q of other views of the same instances.
        temperature: T.

    Returns:
        A scalar.
    """
    scores = one @ other.T / temperature
    return functional.cross_entropy(scores, torch.arange(len(one), device=one.device))


class InstanceCritic(WassersteinCritic):
    """Adds a second output to the Wasserstein critic, by which it discriminates instances.

    Two views of a real feature are two random changes of it; those of a generated one are G(s, z)
    and G(s, z + change). Each condition is used with two noises, so the condition alone does not
    tell an instance. Real and generated features each add `instance_loss` to the loss of the
    critic, with the weight `instance_weight`. The generator adds that of its features: they are to
    differ from each other.

    Source: Yang et al., "Data-Efficient Instance Generation from Instance Discrimination", NeurIPS
    2021 (InsGen). Its discriminator is that of StyleGAN2, and its negatives come from a queue of an
    averaged network; the Wasserstein critic, negatives of the same step, and the size of the
    changes are choices of this project.
    """

    def __init__(self, feature_dim: int, config: GenerateConfig) -> None:
        super().__init__(feature_dim, config)
        self.seen = nn.Linear(feature_dim, config.hidden_dim)
        self.projected = nn.Linear(config.hidden_dim, _PROJECTION)
        # The score and the projections share the layer that sees the feature.
        self.first = nn.Linear(config.hidden_dim + feature_dim, config.hidden_dim)

    def score(self, features: Tensor, condition: Tensor) -> Tensor:
        """Returns (B,) scores of features (B, D) under their conditions (B, D)."""
        inputs = torch.cat([self._see(features), self.scale * condition], dim=1)
        scores: Tensor = self.second(functional.leaky_relu(self.first(inputs), SLOPE))
        return scores[:, 0]

    def projection(self, features: Tensor) -> Tensor:
        """Returns the projections (B, P) of features (B, D), of length 1."""
        return functional.normalize(self.projected(self._see(features)), dim=1)

    def critic_loss(self, generator: FeatureGenerator, draw: Draw) -> Tensor:
        """Returns the loss of the critic, see `Critic`."""
        loss = super().critic_loss(generator, draw)
        if not self.config.instance_weight:
            return loss
        views = [self.projection(_changed(draw.real)) for _ in range(2)]
        real = instance_loss(views[0], views[1], self.config.temperature)
        return loss + self.config.instance_weight * (real + self._of_generated(generator, draw))

    def generator_loss(self, generator: FeatureGenerator, draw: Draw, made: Tensor) -> Tensor:
        """Returns the loss of the generator, see `Critic`."""
        loss = super().generator_loss(generator, draw, made)
        if not self.config.instance_weight:
            return loss
        own = self._of_generated(generator, draw, gradient=True)
        return loss + self.config.instance_weight * own

    def _see(self, features: Tensor) -> Tensor:
        return functional.leaky_relu(self.seen(self.scale * features), SLOPE)

    def _of_generated(
        self, generator: FeatureGenerator, draw: Draw, *, gradient: bool = False
    ) -> Tensor:
        condition = torch.cat([draw.condition, draw.condition])
        noise = torch.cat([draw.noise, draw.further])
        change = _NOISE_CHANGE * torch.randn_like(noise)
        with torch.set_grad_enabled(gradient):
            one, other = generator(condition, noise), generator(condition, noise + change)
        views = self.projection(one), self.projection(other)
        return instance_loss(*views, self.config.temperature)


def _changed(features: Tensor) -> Tensor:
    size = _CHANGE / features.shape[1] ** 0.5
    return functional.normalize(features + size * torch.randn_like(features), dim=1)
