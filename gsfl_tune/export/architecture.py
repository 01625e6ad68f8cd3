"""What must be known to build the network of a bundle before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import (
    Network,
    PlainHead,
    Projection,
    create_backbone,
    create_pooling,
)
from gsfl_tune.training.features import FeatureRecipe


@dataclass(frozen=True)
class Architecture:
    """The discriminative path: backbone, projection, pooling, encoder and classifier.

    Written out in ``config.json`` beside the experiment's configuration, so that a bundle
    still loads when keys of the experiment file have changed.
    """

    backbone: str
    pooling: str
    pooling_dim: int | None  # of compact bilinear pooling
    projection: tuple[int, int] | None  # channels before and after
    latent_dim: int
    class_count: int
    feature_scale: float
    dropout: float

    @classmethod
    def of(cls, config: Config, network: Network, class_count: int) -> Architecture:
        """Architecture of a trained network."""
        recipe = FeatureRecipe.of(config)
        projection = None
        if network.projection is not None:
            projection = (network.backbone.channels, network.projection.channels)
        return cls(
            backbone=recipe.backbone,
            pooling=recipe.pooling,
            pooling_dim=recipe.pooling_dim,
            projection=projection,
            latent_dim=config.model.latent_dim,
            class_count=class_count,
            feature_scale=config.model.feature_scale,
            dropout=config.model.dropout,
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """The inverse of ``dataclasses.asdict`` after JSON."""
        projection = content["projection"]
        return cls(**{**content, "projection": tuple(projection) if projection else None})

    def build(self, state: Mapping[str, Tensor]) -> Network:
        """The network with `state`, in eval mode on the CPU.

        Raises:
            RuntimeError: If a tensor is missing, left over, or of another shape.
            ValueError: If there is no such backbone or pooling.
        """
        # On the meta device nothing is drawn only to be replaced; what the weights do not
        # cover (buffers that a model computes itself) needs the real device.
        with torch.device("meta"):
            network = self._create()
        network.load_state_dict(dict(state), strict=True, assign=True)
        if _has_meta(network):
            with torch.random.fork_rng(devices=[]):
                network = self._create()
            network.load_state_dict(dict(state), strict=True)
        return network.eval().requires_grad_(False)

    def _create(self) -> Network:
        backbone = create_backbone(self.backbone, "none")
        channels, projection = backbone.channels, None
        if self.projection:
            before, channels = self.projection
            projection = Projection(torch.empty(channels, before), torch.empty(before))
        options = {} if self.pooling_dim is None else {"dim": self.pooling_dim}
        pooling = create_pooling(self.pooling, channels, **options)
        head = PlainHead(
            pooling.dim,
            self.class_count,
            latent_dim=self.latent_dim,
            dropout=self.dropout,
            feature_scale=self.feature_scale,
        )
        return Network(backbone, projection, pooling, head)


def _has_meta(network: nn.Module) -> bool:
    held = (value for module in network.modules() for value in vars(module).values())
    tensors = [*network.parameters(), *network.buffers(), *held]
    return any(isinstance(value, Tensor) and value.is_meta for value in tensors)


def shared_tensors(network: Network) -> dict[str, Tensor]:
    """The rest of the head, which only the evidence needs; empty for a plain head."""
    kept = set(network.head.inference_state())
    return {
        f"head.{name}": tensor
        for name, tensor in network.head.state_dict().items()
        if name not in kept
    }
