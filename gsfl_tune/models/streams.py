"""Two backbones side by side, or two layers of one, whose maps lie on one grid.

Source: Lin, RoyChowdhury and Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV
2015: two networks look at an image, and the pooling multiplies their channels at every position.
Their maps often have other grids. Here the finer one is averaged to the coarser: a value is the
mean over the area that its position covers, as fractions of cells where grids do not divide.

To everything else the two are one backbone: its map has the channels of both, those of the first
one first. Its name is both names with a ``+``. Its k last blocks are the k last ones of each.

Two layers of one backbone are joined alike, see `gsfl_tune.models.two_layers`: the last map first,
then the one behind the block that N others follow. The name has an ``@`` and N behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gsfl_tune.models._blocks import Blocks
from gsfl_tune.models._facts import BackboneFacts, to_map
from gsfl_tune.models._reads import Reads

# In no name of timm or of a package. `ModelConfig.extractor` writes them.
_AND, _LAYER = "+", "@"

WHOLE = "whole"
"""Name of the attribute that holds a backbone of which two layers are read."""

Weights = str | tuple[str, str]
"""A value of ``model.weights``, or one for each stream."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of inputs, per channel."""


def stream_names(name: str) -> list[str]:
    """Returns the timm names of a backbone: one, or those of two streams."""
    return second_layer_of(name)[0].split(_AND)


def second_layer_of(name: str) -> tuple[str, int]:
    """Returns the name of a backbone without its second layer, and N of that; 0 for none."""
    whole, _, following = name.partition(_LAYER)
    return (whole, int(following)) if following.isdecimal() else (name, 0)


def stream_weights(name: str, weights: Weights) -> list[tuple[str, str]]:
    """Pairs the timm names of a backbone with their weights."""
    names = stream_names(name)
    own = weights if isinstance(weights, tuple) else (weights,) * len(names)
    return list(zip(names, own, strict=True))


def weights_words(weights: Weights) -> str:
    """Names weights for people."""
    return weights if isinstance(weights, str) else " and ".join(dict.fromkeys(weights))


class Joined(nn.Module):
    """Runs timm models, and joins their maps.

    Attributes:
        parts: Names of the attributes that hold the models.
    """

    parts: ClassVar[tuple[str, ...]]


class TwoStreams(Joined):
    """Runs two timm models on the same images.

    Args:
        first: A timm model.
        second: Another one.
        facts: Of both.
        statistics: Of the inputs of both; images are normalised for the first one.
    """

    parts = ("first", "second")
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        facts: tuple[BackboneFacts, BackboneFacts],
        statistics: tuple[Statistics, Statistics],
    ) -> None:
        super().__init__()
        self.first: Any = first
        self.second: Any = second
        self.facts = facts
        (mean, std), (other_mean, other_std) = (
            [torch.tensor(each).view(3, 1, 1) for each in own] for own in statistics
        )
        self.register_buffer("scale", std / other_std)
        self.register_buffer("shift", (mean - other_mean) / other_std)

    def forward_features(self, images: Tensor) -> Tensor:
        """Returns the maps (B, C + C', h, w) of both on the coarser grid.

        Args:
            images: (B, 3, height, width), normalised for the first one.
        """
        size = (images.shape[2], images.shape[3])
        second = self.second.forward_features(self.for_second(images))
        return self.join(self.first.forward_features(images), second, size)

    def for_second(self, images: Tensor) -> Tensor:
        """Normalises images for the second model, given as they are for the first one."""
        return images * self.scale + self.shift

    def join(self, first: Tensor, second: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the maps of both on one grid, of what their `forward_features` gave.

        Args:
            first: Of the first model, in timm's layout.
            second: Of the second one.
            size: Height and width of the images in pixels.
        """
        maps = [
            to_map(features, facts, *size)
            for features, facts in zip((first, second), self.facts, strict=True)
        ]
        return on_one_grid(maps)


def undecayed_names(model: nn.Module) -> set[str]:
    """Names the parameters of timm models that their authors train without weight decay."""
    if isinstance(model, Joined):
        return {
            name
            for part in model.parts
            for name in _below(part, undecayed_names(getattr(model, part)))
        }
    named = getattr(model, "no_weight_decay", None)
    return set(named()) if callable(named) else set()


def on_one_grid(maps: Sequence[Tensor]) -> Tensor:
    """Joins maps (B, C, h, w) of the same images by their channels, on the coarser grid."""
    height, width = (min(each.shape[side] for each in maps) for side in (2, 3))
    return torch.cat([averaged(each, height, width) for each in maps], dim=1)


def averaged(maps: Tensor, height: int, width: int) -> Tensor:
    """Averages maps (B, C, h, w) over the areas of a coarser grid.

    Two matrix products, which every format of an exported network knows.

    Args:
        maps: The maps.
        height: Rows of the grid, at most h.
        width: Its columns, at most w.
    """
    if maps.shape[2] != height:
        maps = _areas(maps, height, 2) @ maps
    if maps.shape[3] != width:
        maps = maps @ _areas(maps, width, 3).T
    return maps


def _areas(maps: Tensor, cells: int, side: int) -> Tensor:
    """Returns the share (cells, size) of every old cell in each new one, along one side."""
    size = maps.shape[side]
    # In units of 1 / cells of an old cell, so that shares are exact.
    old = torch.arange(size, device=maps.device) * cells
    new = torch.arange(cells, device=maps.device)[:, None] * size
    ends = torch.minimum(old + cells, new + size)
    shares = (ends - torch.maximum(old, new)).clamp(min=0) / size
    return shares.to(maps.dtype)


def joined_facts(first: BackboneFacts, second: BackboneFacts) -> BackboneFacts:
    """Returns the facts of two streams of which maps are read.

    Args:
        first: Facts of the first backbone.
        second: Of the second one.
    """
    return BackboneFacts(
        options=(),
        layout="NCHW",
        prefix_tokens=0,
        reads="map",
        channels=first.channels + second.channels,
        input_size=first.input_size,
        mean=first.mean,
        std=first.std,
        parameters=first.parameters + second.parameters,
        unused=frozenset([*_below("first", first.unused), *_below("second", second.unused)]),
        block_names=_joined_blocks(first.block_names, second.block_names),
        second_channels=second.channels,
    )


def layered_facts(whole: BackboneFacts, stop: str, channels: int) -> BackboneFacts:
    """Returns the facts of two layers of which maps are read.

    Args:
        whole: Facts of the backbone.
        stop: Path of the module that the map of the second layer enters.
        channels: Of that map.
    """
    return replace(
        whole,
        layout="NCHW",
        prefix_tokens=0,
        channels=whole.channels + channels,
        unused=frozenset(map(below_whole, whole.unused)),
        block_names=tuple(tuple(map(below_whole, block)) for block in whole.block_names),
        second_channels=channels,
        second_stop=stop,
    )


def below_whole(name: str) -> str:
    """Returns the name that a parameter or module of a backbone has where two layers are read."""
    return f"{WHOLE}.{name}"


def streams_problem(reads: Reads) -> str | None:
    """Says why two streams cannot be read together, or None."""
    return None if reads == "map" else "two backbones are joined by their maps alone"


def _joined_blocks(first: Blocks, second: Blocks) -> Blocks:
    pairs = zip_longest(reversed(first), reversed(second), fillvalue=())
    joined = [(*_below("first", own), *_below("second", other)) for own, other in pairs]
    return tuple(reversed(joined))


def _below(stream: str, names: Any) -> list[str]:
    return [f"{stream}.{name}" for name in names]
