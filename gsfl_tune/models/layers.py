"""The maps behind the last blocks of a backbone, one behind another.

The map behind a block is the input of the first module of the next one. A pass for it ends there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from gsfl_tune.models._blank import blank_model
from gsfl_tune.models._blocks import Blocks
from gsfl_tune.models._facts import BackboneFacts, to_map
from gsfl_tune.models._probe import map_shape, probe
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.streams import stream_names


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
        have one map, that in front of the pooling.

    Raises:
        BackboneError: If there is no such backbone, or nothing such to read.
    """
    facts = probe(name, reads)
    if len(stream_names(name)) > 1:
        _, height, width = map_shape(name, image_size, reads)
        return (Layer(facts.channels, places=height * width),)
    trained = facts.block_names if blocks == "all" else facts.block_names[-blocks:]
    trained = tuple(each for each in trained if not set(each).issubset(facts.head_names))
    model: Any = blank_model(name, reads).eval()
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, image_size, image_size, device=device)
    features, entered = _inputs_of(model, trained, images)
    found = [_layer(to_map(features, facts, image_size, image_size))]
    for path, value in reversed(entered[1:]):
        # Tokens of another grid may be in an order of their own.
        alike = value is not None and (value.ndim == 4 or value.shape[1:-1] == features.shape[1:-1])
        if value is None or not alike:
            break
        found.append(_layer(layer_map(value, facts), path))
    return tuple(found)


def _layer(maps: Tensor, stop: str = "") -> Layer:
    return Layer(maps.shape[1], stop, maps.shape[2] * maps.shape[3])


def layer_map(activations: Tensor, facts: BackboneFacts) -> Tensor:
    """Returns activations behind a block of `layers_of` as a map (B, C, h, w)."""
    if activations.ndim == 4 and facts.layout != "NHWC":
        return activations
    # Images are square.
    return to_map(activations, facts, 1, 1)


def stopped_at(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Runs a model until a module of it is called, and returns the input of that.

    Raises:
        ValueError: If the module is not called.
    """

    def stop(_: nn.Module, arguments: tuple[Any, ...]) -> NoReturn:
        raise _Reached(arguments[0])

    handle = module.register_forward_pre_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.activations
    finally:
        handle.remove()
    raise ValueError("the module was not called")


class _Reached(Exception):
    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations = activations


def _inputs_of(
    model: Any, blocks: Blocks, images: Tensor
) -> tuple[Tensor, list[tuple[str, Tensor | None]]]:
    """Returns the output, and for each block its first module and the single tensor it is given."""
    wanted = [{name for block in blocks[first:] for name in block} for first in range(len(blocks))]
    found: list[tuple[str, Tensor | None] | None] = [None] * len(blocks)

    def enter(path: str, names: set[str]) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for place, known in enumerate(wanted):
                if found[place] is None and names <= known:
                    single = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
                    found[place] = path, args[0] if single else None

        return hook

    handles = []
    for path, module in model.named_modules():
        names = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if path and names:
            handles.append(module.register_forward_pre_hook(enter(path, names), with_kwargs=True))
    try:
        with torch.no_grad():
            features = model.forward_features(images)
    finally:
        for handle in handles:
            handle.remove()
    return features, [("", None) if each is None else each for each in found]
