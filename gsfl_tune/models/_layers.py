"""What enters the blocks of a timm model: the maps behind the blocks in front of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gsfl_tune.models._blocks import Blocks
from gsfl_tune.models._facts import BackboneFacts, to_map

Entered = tuple[str, Tensor | None]
"""Path of the first module of a block, and the single tensor that it is given, if it is one."""


def layer_map(activations: Tensor, facts: BackboneFacts, height: int = 1, width: int = 1) -> Tensor:
    """Returns activations behind a block as a map (B, C, h, w).

    Args:
        activations: In the layout of the model; maps may have their channels in front.
        facts: Of the model.
        height: Of the images in pixels; images are square where none is given.
        width: Of the images in pixels.
    """
    if activations.ndim == 4 and facts.layout != "NHWC":
        return activations
    return to_map(activations, facts, height, width)


def is_map(activations: Tensor | None, features: Tensor) -> bool:
    """Returns whether what enters a block is a map that `layer_map` can read.

    Args:
        activations: What enters it.
        features: Output of the model. Tokens of another grid may be in an order of their own.
    """
    if activations is None:
        return False
    return activations.ndim == 4 or activations.shape[1:-1] == features.shape[1:-1]


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


def inputs_of(model: Any, blocks: Blocks, images: Tensor) -> tuple[Tensor, list[Entered]]:
    """Returns the output of a model, and for each block what enters it."""
    wanted = [{name for block in blocks[first:] for name in block} for first in range(len(blocks))]
    found: list[Entered | None] = [None] * len(blocks)

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
