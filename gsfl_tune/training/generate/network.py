"""The generator of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2
"""Slope of the leaky ReLU below zero, in the generator and in the critics."""


class FeatureGenerator(nn.Module):
    """Makes a unit feature of a class from another one of the class, or its mean, and noise.

    ``G(s, z) = (s + t) / |s + t|``, where t is a network of two layers of sqrt(D) s and z, divided
    by sqrt(D). Two layers with a leaky ReLU are those of AFHN (Li et al., CVPR 2020, arXiv
    2003.13193). The sum with s and the length of 1 are choices of this project: few images of a
    class suffice to begin from what is known of it, and cached features have this length.

    Args:
        feature_dim: D.
        noise_dim: Z, size of the noise.
        hidden_dim: Width of the hidden layer.
        means: (C, D) means of the classes, of length 1, if features are made from these; they are
            saved with the weights. None makes them from given features.
    """

    means: Tensor | None

    def __init__(
        self, feature_dim: int, noise_dim: int, hidden_dim: int, means: Tensor | None = None
    ) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        # Entries of a unit feature are small beside those of the noise, and of a new layer.
        self.scale = feature_dim**0.5
        self.first = nn.Linear(feature_dim + noise_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, feature_dim)
        self.register_buffer("means", means)

    def condition(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns what features are made from, (B, D).

        Args:
            features: (B, D) unit features of images.
            labels: (B,) their classes.
        """
        return features if self.means is None else self.means[labels]

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Makes features.

        Args:
            condition: (B, D) unit features, see `condition`.
            noise: (B, Z) of a normal distribution.

        Returns:
            (B, D) of length 1.
        """
        inputs = torch.cat([self.scale * condition, noise], dim=1)
        hidden = functional.leaky_relu(self.first(inputs), SLOPE)
        return functional.normalize(condition + self.second(hidden) / self.scale, dim=1)
