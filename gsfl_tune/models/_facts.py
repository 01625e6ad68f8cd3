"""What is known about a timm model: how it is created, its output read, its last blocks trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from timm.models.vgg import VGG
from torch import Tensor, nn

from gsfl_tune.models._blocks import Blocks
from gsfl_tune.models._reads import (
    LAST_BLOCKS,
    Reads,
    full_precision,
    no_autocast,
    with_gradient_in_layout,
)


class BackboneError(ValueError):
    """Raised for a timm model that cannot be a backbone, or not at this image size."""


@dataclass(frozen=True)
class BackboneFacts:
    """Describes how to create a model and how to read its output.

    Attributes:
        options: Keyword arguments for `timm.create_model`.
        layout: Layout of `forward_features`: ``NCHW``, ``NHWC`` or ``tokens`` (B, N, C).
        prefix_tokens: Number of tokens before those that form the map.
        reads: What the backbone gives to its pooling.
        channels: Number of channels C of that.
        input_size: Side of the images that the model was made for.
        mean: Mean of its inputs, per channel.
        std: Standard deviation of its inputs, per channel.
        parameters: Number of parameters that what is read depends on.
        unused: Names of parameters that it does not depend on.
        block_names: Names of the parameters of every block; the last blocks can be trained
            alone.
        head_names: Names of the parameters that the model's own head alone uses, where it is read.
        second_channels: How many of the channels, the last ones, are of a second stream, or of a
            second layer.
        second_stop: Path of the module that the map of a second layer enters; empty for none.
    """

    options: tuple[tuple[str, Any], ...]
    layout: str
    prefix_tokens: int
    reads: Reads
    channels: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parameters: int
    unused: frozenset[str]
    block_names: Blocks
    head_names: tuple[str, ...] = ()
    second_channels: int = 0
    second_stop: str = ""

    @property
    def blocks(self) -> int:
        """Returns the number of blocks."""
        return len(self.block_names)

    @property
    def map_is_all(self) -> bool:
        """Returns whether what is read follows from the map (B, C, h, w) alone."""
        if self.reads == "head":
            return self.layout != "tokens" or self.prefix_tokens == 0
        return self.reads == "map"


def cut(model: nn.Module, reads: Reads = "map") -> nn.Module:
    """Removes the layers after the feature map: VGG's pool5 and its fully connected layers.

    Where the model's own head is read, they stay.
    """
    if isinstance(model, VGG) and reads != "head":
        layers = list(model.features)
        last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
        model.features = nn.Sequential(*layers[:last])
        model.pre_logits = nn.Identity()
    return model


def to_map(features: Tensor, facts: BackboneFacts, height: int, width: int) -> Tensor:
    """Converts the output of ``forward_features`` to a (B, C, h, w) map; input size in pixels."""
    if facts.layout == "NCHW":
        return with_gradient_in_layout(features)
    if facts.layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    tokens = features[:, facts.prefix_tokens :]
    rows = max(1, round(math.sqrt(tokens.shape[1] * height / width)))
    return tokens.transpose(1, 2).unflatten(2, (rows, tokens.shape[1] // rows))


def from_map(maps: Tensor, facts: BackboneFacts) -> Tensor:
    """Converts a map back to the layout of ``forward_features``; `map_is_all` must hold."""
    if facts.layout == "NCHW":
        return maps
    if facts.layout == "NHWC":
        return maps.permute(0, 2, 3, 1)
    return maps.flatten(2).transpose(1, 2)


def read(model: Any, features: Tensor, facts: BackboneFacts, height: int, width: int) -> Tensor:
    """Converts the output of ``forward_features`` to what a pooling reads.

    Args:
        model: The model, whose own head may follow.
        features: The output.
        facts: Facts about the model.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        The map (B, C, h, w), tokens (B, 1 + h w, C) with the class token first, or the vectors
        (B, C) of the model's own head, in full precision unless its weights are in half.
    """
    if facts.reads == "map":
        return to_map(features, facts, height, width)
    if facts.reads == "tokens" or facts.reads in LAST_BLOCKS:
        if facts.prefix_tokens == 1:
            return features
        # Between the class token and the positions: registers, or DeiT's second class token.
        return torch.cat([features[:, :1], features[:, facts.prefix_tokens :]], dim=1)
    if facts.layout == "NCHW":
        features = with_gradient_in_layout(features)
    features = features.to(_precision(model)) if facts.head_names else full_precision(features)
    with no_autocast(features.device.type):
        pooled: Tensor = model.forward_head(features, pre_logits=True)
    return pooled


def _precision(model: nn.Module) -> torch.dtype:
    """Returns the precision of a model's weights, which in a fast copy are buffers."""
    tensors = chain(model.parameters(), model.buffers())
    return next((each.dtype for each in tensors if each.is_floating_point()), torch.float32)
