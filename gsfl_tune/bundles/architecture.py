"""Description of a bundle's network, from which it is built before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import (
    INFERENCE_HEADS,
    AttentionSettings,
    BilinearAttention,
    Ensemble,
    Granularities,
    GranularitySettings,
    Network,
    PartDetector,
    PartSettings,
    PlainHead,
    Projection,
    Recurrence,
    RecurrentAttention,
    create_backbone,
    create_pooling,
    member_states,
    pooling_class,
)


@dataclass(frozen=True)
class Architecture:
    """Describes the discriminative path: backbone, projection, pooling, encoder and classifier.

    It is in ``config.json`` beside the experiment's configuration, so that a bundle still loads
    after keys of the experiment file have changed.
    """

    backbone: str  # both names with a + if there are two streams, a second layer behind an @
    pooling: str
    pooling_dim: int | None  # of compact bilinear pooling
    projection: tuple[int, int] | None  # channels before and after
    latent_dim: int
    class_count: int
    feature_scale: float
    dropout: float
    head: str = PlainHead.architecture  # a key of `INFERENCE_HEADS`
    gem_power: float | None = None  # of generalised mean pooling
    attention_heads: int | None = None  # of attention pooling
    # Path of the module in front of which styles are restituted, and channels.
    restitution: tuple[str, int] | None = None
    # Channels of the maps that propose regions, and how.
    recurrent: tuple[int, Recurrence] | None = None
    # Channels of the map on which parts are found, and sizes.
    parts: tuple[int, PartSettings] | None = None
    # The same of attention maps.
    attention: tuple[int, AttentionSettings] | None = None
    # Of the classifiers behind blocks, whose scores are added.
    granularities: GranularitySettings | None = None
    # Of those that are pooled, how many are multiplied with the others: a second stream or layer.
    second_channels: int = 0

    @classmethod
    def of(cls, config: Config, network: Network, class_count: int) -> Architecture:
        """Returns the architecture of a trained network."""
        model, projection = config.model, None
        pooling = pooling_class(model.pooling)
        if network.projection is not None:
            projection = (network.backbone.channels, network.projection.channels)
        return cls(
            backbone=model.extractor,
            pooling=model.pooling,
            pooling_dim=model.pooling_dim if pooling.takes_dim else None,
            projection=projection,
            latent_dim=network.head.latent_dim,
            class_count=class_count,
            feature_scale=network.head.feature_scale,
            dropout=model.dropout if network.head.encodes else 0.0,
            head=network.head.architecture,
            gem_power=model.gem_power if pooling.takes_power else None,
            attention_heads=model.attention_heads if pooling.takes_heads else None,
            restitution=_restitution(network),
            recurrent=_recurrent(network),
            parts=_parts(network),
            attention=_attention(network),
            granularities=network.granularities.settings if network.granularities else None,
            second_channels=getattr(network.pooling, "second", 0),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """Inverts ``dataclasses.asdict`` after JSON."""
        projection = content["projection"]
        if content.get("head", PlainHead.architecture) not in INFERENCE_HEADS:
            known = " and ".join(INFERENCE_HEADS)
            raise ValueError(f"head {content['head']}, this version supports {known}")
        pairs = {"projection": projection, "restitution": content.get("restitution")}
        if recurrent := content.get("recurrent"):
            channels, settings = recurrent
            recurrent = channels, Recurrence(**settings)
        if parts := content.get("parts"):
            parts = parts[0], PartSettings(**parts[1])
        if attention := content.get("attention"):
            attention = attention[0], AttentionSettings(**attention[1])
        if granularities := content.get("granularities"):
            tuples = {key: tuple(granularities[key]) for key in ("channels", "stops")}
            granularities = GranularitySettings(**{**granularities, **tuples})
        return cls(
            **{
                **content,
                **{key: each and tuple(each) for key, each in pairs.items()},
                "recurrent": recurrent,
                "parts": parts,
                "attention": attention,
                "granularities": granularities,
            }
        )

    def build(self, state: Mapping[str, Tensor], *, pruned: bool = False) -> Network:
        """Builds the network with `state`, in eval mode on the CPU.

        Args:
            state: Tensors by name.
            pruned: Whether the backbone has lost channels: layers take the sizes of their tensors.

        Raises:
            RuntimeError: If a tensor is missing, left over, or of another shape.
            ValueError: If there is no such backbone or pooling.
        """
        # The meta device avoids drawing weights that are replaced anyway. Buffers that a model
        # computes itself are not among the weights and need the real device.
        with torch.device("meta"):
            network = self._create()
        if pruned:
            take_sizes(network.backbone, state, "backbone.")
        network.load_state_dict(dict(state), strict=True, assign=True)
        if _has_meta(network):
            with torch.random.fork_rng(devices=[]):
                network = self._create()
            if pruned:
                take_sizes(network.backbone, state, "backbone.")
            network.load_state_dict(dict(state), strict=True)
        return network.eval().requires_grad_(False)

    def build_ensemble(
        self, state: Mapping[str, Tensor], *, members: int, flip: bool, crops: bool = False
    ) -> Ensemble:
        """Builds the networks of an ensemble with `state`, see `Ensemble.inference_state`.

        Args:
            state: Tensors by name.
            members: Number of networks.
            flip: Whether images are also seen mirrored.
            crops: Whether their corners are seen too.

        Raises:
            RuntimeError: If a tensor is missing or of another shape.
            ValueError: If one is left over, or there is no such backbone or pooling.
        """
        networks = [self.build(each) for each in member_states(dict(state), members)]
        return Ensemble(networks, flip=flip, crops=crops).eval()

    def _create(self) -> Network:
        reads = pooling_class(self.pooling).reads
        backbone = create_backbone(self.backbone, "none", reads=reads)
        if self.restitution:
            backbone.put_restitution(*self.restitution)
        channels, projection = backbone.channels, None
        if self.projection:
            before, channels = self.projection
            projection = Projection(torch.empty(channels, before), torch.empty(before))
        settings = {
            "dim": self.pooling_dim,
            "power": self.gem_power,
            "heads": self.attention_heads,
        }
        given: dict[str, Any] = {key: each for key, each in settings.items() if each is not None}
        pooling = create_pooling(self.pooling, channels, second=self.second_channels, **given)
        recurrent = RecurrentAttention(*self.recurrent) if self.recurrent else None
        parts = PartDetector(*self.parts) if self.parts else None
        attention = BilinearAttention(*self.attention) if self.attention else None
        granularities = Granularities(self.granularities) if self.granularities else None
        further = recurrent, parts, attention, granularities
        return Network(backbone, projection, pooling, self._head(pooling.dim), *further)

    def _head(self, feature_dim: int) -> PlainHead:
        return INFERENCE_HEADS[self.head].create(
            feature_dim,
            self.class_count,
            latent_dim=self.latent_dim,
            dropout=self.dropout,
            feature_scale=self.feature_scale,
            decoder="linear",
        )


def _restitution(network: Network) -> tuple[str, int] | None:
    module = network.backbone.restitution
    return None if module is None else (network.backbone.restituted, module.channels)


def _recurrent(network: Network) -> tuple[int, Recurrence] | None:
    module = network.recurrent
    return None if module is None else (module.channels, module.settings)


def _parts(network: Network) -> tuple[int, PartSettings] | None:
    module = network.parts
    return None if module is None else (module.channels, module.settings)


def _attention(network: Network) -> tuple[int, AttentionSettings] | None:
    module = network.attention
    return None if module is None else (module.channels, module.settings)


def take_sizes(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Shrinks layers to the sizes of the tensors that they will load.

    Args:
        module: The module that lost channels; changed in place.
        state: The tensors, by name.
        prefix: Prefix of the module's names in `state`.
    """
    for name, layer in module.named_modules():
        for own in (layer._parameters, layer._buffers):
            for key, tensor in own.items():
                found = state.get(f"{prefix}{name}.{key}" if name else f"{prefix}{key}")
                if tensor is None or found is None or tensor.shape == found.shape:
                    continue
                empty = torch.empty(found.shape, dtype=tensor.dtype, device=tensor.device)
                is_parameter = isinstance(tensor, nn.Parameter)
                own[key] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
        _say_sizes(layer)


def _say_sizes(layer: nn.Module) -> None:
    """Sets a layer's size attributes to the sizes of its tensors."""
    if isinstance(layer, nn.Conv2d):
        count, per_group = layer.weight.shape[:2]
        if layer.groups > 1 and layer.groups == layer.in_channels:
            layer.groups = count  # depthwise
        layer.out_channels, layer.in_channels = count, per_group * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
        layer.num_features = len(layer.running_mean)
    elif isinstance(layer, nn.LayerNorm) and layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _has_meta(network: nn.Module) -> bool:
    held = (value for module in network.modules() for value in vars(module).values())
    tensors = [*network.parameters(), *network.buffers(), *held]
    return any(isinstance(value, Tensor) and value.is_meta for value in tensors)


def shared_tensors(network: Network) -> dict[str, Tensor]:
    """Returns the rest of the head, which only the evidence needs; empty for a plain head."""
    kept = set(network.head.inference_state())
    return {
        f"head.{name}": tensor
        for name, tensor in network.head.state_dict().items()
        if name not in kept
    }
