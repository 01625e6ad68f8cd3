"""The maps behind the last blocks of a backbone, one behind another.

The map behind a block is the input of the first module of the next one. A pass for it ends there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from gsfl_tune.models._blank import blank_model
from gsfl_tune.models._facts import to_map
from gsfl_tune.models._layers import inputs_of, is_map, layer_map
from gsfl_tune.models._probe import map_shape, probe
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.streams import below_whole, second_layer_of, stream_names


@dataclass(frozen=True)
class Layer:
    """Describes the map behind a block.

    Attributes:
        channels: Its channels.
        stop: Path of the module whose input it is; empty for the last block, whose map is the one
            in front of the pooling.
        places: Its positions for the images that were asked for.
    """

    channels: int
    stop: str = ""
    places: int = 0


@lru_cache(maxsize=64)
def layers_of(
    name: str, blocks: int | Literal["all"], image_size: int, reads: Reads = "map"
) -> tuple[Layer, ...]:
    """Finds the maps behind the trained blocks of a backbone, without weights.

    Args:
        name: Name of a timm model.
        blocks: Number of last blocks that are trained, or ``all``.
        image_size: Side of the images in pixels.
        reads: What its pooling reads; blocks behind the map, in the model's own head, have none.

    Returns:
        The last block's first; up to the first one behind which there is no single map. Two streams
        have one map, that in front of the pooling. So have two layers for their last block.

    Raises:
        BackboneError: If there is no such backbone, or nothing such to read.
    """
    facts = probe(name, reads)
    whole, following = second_layer_of(name)
    if following or len(stream_names(name)) > 1:
        _, height, width = map_shape(name, image_size, reads)
        joined = Layer(facts.channels, places=height * width)
        if not following:
            return (joined,)
        others = layers_of(whole, blocks, image_size, reads)[1:]
        return (joined, *(replace(each, stop=below_whole(each.stop)) for each in others))
    trained = facts.block_names if blocks == "all" else facts.block_names[-blocks:]
    trained = tuple(each for each in trained if not set(each).issubset(facts.head_names))
    model: Any = blank_model(name, reads).eval()
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, image_size, image_size, device=device)
    features, entered = inputs_of(model, trained, images)
    found = [_layer(to_map(features, facts, image_size, image_size))]
    for path, value in reversed(entered[1:]):
        if value is None or not is_map(value, features):
            break
        found.append(_layer(layer_map(value, facts), path))
    return tuple(found)


def _layer(maps: Tensor, stop: str = "") -> Layer:
    return Layer(maps.shape[1], stop, maps.shape[2] * maps.shape[3])
