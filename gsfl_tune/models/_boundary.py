"""The cut of a timm model before its trained blocks: a frozen prefix and a trained suffix.

The method knows nothing about model families. One run shows which modules are done when the first
trained one is entered; in the suffix they pass their input on. A model may do more between its
modules (add an embedding, pass on a second tensor). Then the two parts differ from the whole, the
check here detects this, and the model cannot be cut at this place.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gsfl_tune.models._facts import to_map
from gsfl_tune.models._reads import Reads, run
from gsfl_tune.models.streams import TwoStreams, on_one_grid
from gsfl_tune.models.two_layers import TwoLayers

_NO_CHAIN = "its blocks do not simply follow each other"


class CannotCut(ValueError):
    """Raised for a model that cannot be cut before its trained blocks; the message says why."""


@dataclass(frozen=True)
class Halves:
    """Holds two models that share the modules of the whole one.

    Attributes:
        prefix: Model for `run_prefix`.
        suffix: Takes activations in place of images.
        activations: Activations of the example at the boundary.
        output: Output for the example of the whole model, see `run`.
    """

    prefix: Any
    suffix: Any
    activations: Tensor
    output: Any


def cut_in_front(model: Any, example: Tensor, reads: Reads = "map") -> Halves:
    """Cuts a model before the first module whose parameters are all trained.

    Two streams are each cut there; activations of both are flattened and joined to (B, N). So are
    those at the boundary and the map of a second layer in front of it, on the grid of the last one.

    Args:
        model: A timm model; ``requires_grad`` marks its trained parameters.
        example: (B, 3, height, width) images of the size to cut for.
        reads: What a pooling reads: the boundary may be in the model's own head if it is that.

    Raises:
        CannotCut: If nothing is frozen or trained, or there is no single tensor at the boundary.
    """
    if isinstance(model, TwoStreams):
        return _cut_streams(model, example)
    if isinstance(model, TwoLayers):
        return _cut_layers(model, example)
    boundary, done, behind, activations, output = _trace(model, example, reads)
    suffix = _with(model, dict.fromkeys(done, _Pass()))
    if hasattr(suffix, "_pos_embed"):
        # Position embeddings of vision transformers are added by a method between two modules.
        suffix.__dict__["_pos_embed"] = _same
    return Halves(
        # Nothing behind the boundary runs in it. A copy of the prefix must not copy trained
        # weights, which cannot even be copied where processes divide them.
        prefix=_with(model, dict.fromkeys([boundary, *behind], _Stop())),
        suffix=suffix,
        activations=activations,
        output=output,
    )


def _cut_streams(model: TwoStreams, example: Tensor) -> Halves:
    first = cut_in_front(model.first, example)
    second = cut_in_front(model.second, model.for_second(example))
    size = (example.shape[2], example.shape[3])
    halves = (first, second)
    return Halves(
        prefix=_Prefixes(model, first.prefix, second.prefix),
        suffix=_Suffixes(model, halves, size),
        activations=_flat(first.activations, second.activations),
        output=model.join(first.output, second.output, size),
    )


def _cut_layers(model: TwoLayers, example: Tensor) -> Halves:
    whole = cut_in_front(model.whole, example)
    size = (example.shape[2], example.shape[3])
    with torch.no_grad():
        # The pass that has found the boundary was one of the whole model.
        output = model.join(whole.output, model.seen.take(), size)
        _ = run_prefix(whole.prefix, example, "map")
        second = model.seen.take()
    if second is None:  # the second layer is behind the boundary, or there
        suffix = _with(model, {"whole": whole.suffix})
        return Halves(whole.prefix, suffix, whole.activations, output)
    grid = (output.shape[2], output.shape[3])
    second = model.second_map(second, size, grid)
    return Halves(
        prefix=_LayerPrefix(model, whole.prefix, grid),
        suffix=_LayerSuffix(model, whole, second, size),
        activations=_flat(whole.activations, second),
        output=output,
    )


def _flat(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first.flatten(1), second.flatten(1)], dim=1)


def boundary_of(model: Any, example: Tensor, reads: Reads = "map") -> tuple[str, Tensor]:
    """Returns the first module whose parameters are all trained, and what enters it.

    Arguments and errors are those of `cut_in_front`.
    """
    path, _, _, activations, _ = _trace(model, example, reads)
    return path, activations


def run_prefix(prefix: Any, images: Tensor, reads: Reads) -> Tensor:
    """Returns the activations at the boundary for a batch of images."""
    try:
        run(prefix, images, reads)
    except _Reached as reached:
        return reached.activations
    raise CannotCut("the boundary was not reached")


def require_clean_cut(
    model: Any, halves: Halves, unused: frozenset[str] = frozenset(), reads: Reads = "map"
) -> None:
    """Checks shapes and the flow of gradients; works on the meta device too.

    Args:
        model: The model that was cut.
        halves: Its parts.
        unused: Names of parameters that the output does not depend on.
        reads: What a pooling reads.

    Raises:
        CannotCut: If the suffix gives another shape, or depends on weights of the prefix.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = run(halves.suffix, halves.activations.detach(), reads)
            names, parameters = zip(*model.named_parameters(), strict=True)
            gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    except Exception as error:  # models raise any error on unexpected input
        raise CannotCut(_NO_CHAIN) from error
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
    if output.shape != halves.output.shape:
        raise CannotCut(_NO_CHAIN)
    used = {n for n, gradient in zip(names, gradients, strict=True) if gradient is not None}
    if foreign := used - trained - unused:
        raise CannotCut(f"{min(foreign)} is used behind the boundary")


def _trace(
    model: Any, example: Tensor, reads: Reads
) -> tuple[str, list[str], list[str], Tensor, Any]:
    """Returns the first trained module, outermost ones before and behind it, its input, the output.

    No module behind it contains one before it.
    """
    done: list[str] = []
    entered: list[str] = []
    found: dict[str, Tensor] = {}

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if found:
                entered.append(name)
            elif _all_trained(module):
                found[name] = _single_tensor(args, kwargs)

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not found:
                done.append(name)

        return hook

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(leave(name)))
    try:
        with torch.no_grad():
            output = run(model, example, reads)
    finally:
        for handle in handles:
            handle.remove()
    if not found or not any(True for name in done for _ in model.get_submodule(name).parameters()):
        raise CannotCut("nothing is frozen in front of what is trained")
    ((boundary, activations),) = found.items()
    again = set(entered) & {*done, boundary}
    if again:
        raise CannotCut(f"{min(again)} is used on both sides of the boundary")
    before = (*done, boundary)
    behind = [n for n in entered if not any(other.startswith(f"{n}.") for other in before)]
    return boundary, _outermost(done), _outermost(behind), activations, output


def _outermost(names: list[str]) -> list[str]:
    return [n for n in names if not any(n.startswith(f"{other}.") for other in names)]


def _all_trained(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(parameter.requires_grad for parameter in parameters)


def _single_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    tensors = [value for value in (*args, *kwargs.values()) if value is not None]
    tensors = [value for value in tensors if not isinstance(value, bool)]
    if len(tensors) != 1 or not args or not isinstance(args[0], Tensor):
        raise CannotCut("more than one tensor crosses the boundary")
    return args[0]


def _with(module: nn.Module, replacements: Mapping[str, nn.Module], path: str = "") -> Any:
    """Returns the module with some descendants replaced; all others are shared, not copied."""
    if path in replacements:
        return replacements[path]
    if not any(name.startswith(f"{path}." if path else "") for name in replacements):
        return module
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: child and _with(child, replacements, f"{path}.{name}" if path else name)
        for name, child in module._modules.items()
    }
    return twin


class _Reached(Exception):
    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations = activations


class _Stop(nn.Module):
    """Ends a forward pass and returns its input."""

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> NoReturn:
        raise _Reached(x)


class _Pass(nn.Module):
    """Passes its input on."""

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return x


class _Prefixes(nn.Module):
    """Runs the prefixes of two streams, and ends as a prefix does."""

    def __init__(self, streams: TwoStreams, first: Any, second: Any) -> None:
        super().__init__()
        # For its statistics alone.
        self.streams = _with(streams, {"first": _Stop(), "second": _Stop()})
        self.first = first
        self.second = second

    def forward_features(self, images: Tensor) -> NoReturn:
        first = run_prefix(self.first, images, "map")
        second = run_prefix(self.second, self.streams.for_second(images), "map")
        raise _Reached(_flat(first, second))


class _Suffixes(nn.Module):
    """Runs the suffixes of two streams on joined activations (B, N)."""

    def __init__(
        self, streams: TwoStreams, halves: tuple[Halves, Halves], size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.streams = streams
        self.first, self.second = (each.suffix for each in halves)
        self.size = size
        self.shapes = [each.activations.shape[1:] for each in halves]

    def forward_features(self, activations: Tensor) -> Tensor:
        first, second = _parted(activations, self.shapes)
        outputs = self.first.forward_features(first), self.second.forward_features(second)
        return self.streams.join(*outputs, self.size)


class _LayerPrefix(nn.Module):
    """Runs the prefix of a model with a second layer in it, and ends as a prefix does."""

    def __init__(self, layers: TwoLayers, whole: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        # For what it has seen alone.
        self.layers = _with(layers, {"whole": _Stop()})
        self.whole = whole
        self.grid = grid

    def forward_features(self, images: Tensor) -> NoReturn:
        try:
            activations = run_prefix(self.whole, images, "map")
        finally:
            second = self.layers.seen.take()
        size = (images.shape[2], images.shape[3])
        raise _Reached(_flat(activations, self.layers.second_map(second, size, self.grid)))


class _LayerSuffix(nn.Module):
    """Runs the suffix of a model on joined activations (B, N) with a second layer in them."""

    def __init__(
        self, layers: TwoLayers, whole: Halves, second: Tensor, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.whole = whole.suffix
        self.facts = layers.facts
        self.size = size
        self.shapes = [whole.activations.shape[1:], second.shape[1:]]

    def forward_features(self, activations: Tensor) -> Tensor:
        entering, second = _parted(activations, self.shapes)
        last = self.whole.forward_features(entering)
        return on_one_grid([to_map(last, self.facts, *self.size), second])


def _parted(activations: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Inverts `_flat`, given the shapes of a single image."""
    parts = activations.split([math.prod(shape) for shape in shapes], dim=1)
    return [_as_images(part.unflatten(1, shape)) for part, shape in zip(parts, shapes, strict=True)]


def _as_images(activations: Tensor) -> Tensor:
    """Puts the channels of maps last in memory, as those of images are."""
    if activations.ndim != 4:
        return activations
    return activations.contiguous(memory_format=torch.channels_last)


def _same(x: Tensor) -> Tensor:
    return x
