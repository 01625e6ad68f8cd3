"""What every critic of the generator has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.generate.network import FeatureGenerator


@dataclass(frozen=True)
class Draw:
    """Holds the images and the noise of a step.

    Attributes:
        real: (B, D) unit features of images.
        labels: (B,) their classes.
        condition: (B, D) what features of these classes are made from.
        noise: (B, Z) of a normal distribution.
        further: (B, Z) another noise for the same conditions.
    """

    real: Tensor
    labels: Tensor
    condition: Tensor
    noise: Tensor
    further: Tensor


class Critic(nn.Module, ABC):
    """Tells generated features from those of images; the generator is trained against it.

    Args:
        feature_dim: D.
        config: Settings of the section.
    """

    def __init__(self, feature_dim: int, config: GenerateConfig) -> None:
        super().__init__()
        self.scale = feature_dim**0.5
        self.config = config

    @abstractmethod
    def critic_loss(self, generator: FeatureGenerator, draw: Draw) -> Tensor:
        """Returns the loss of the critic, a scalar; no gradient reaches the generator."""

    @abstractmethod
    def generator_loss(self, generator: FeatureGenerator, draw: Draw, made: Tensor) -> Tensor:
        """Returns the loss of the generator, a scalar.

        Args:
            generator: The generator.
            draw: The step.
            made: (B, D) features of ``draw.condition`` and ``draw.noise``, with their gradient.
        """
