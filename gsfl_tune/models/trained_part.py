"""Which parameters of the trained blocks are trained: all of them, or a small part.

Norms alone: Frankle et al., "Training BatchNorm and Only BatchNorm: On the Expressive Power of
Random Features in CNNs", ICLR 2021. Biases alone: Ben Zaken et al., "BitFit: Simple
Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", ACL 2022. Adapters:
`gsfl_tune.models.adapters`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gsfl_tune.models._blank import blank_model
from gsfl_tune.models._blocks import trained_names
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads

TrainedPart = Literal["all", "norms", "biases", "lora", "dora"]
ADAPTERS: tuple[TrainedPart, ...] = ("lora", "dora")

_WORDS = {
    "norms": "norm with weights",
    "biases": "bias",
    "lora": "linear layer or 1 x 1 convolution",
    "dora": "linear layer or 1 x 1 convolution",
}


def part_names(model: nn.Module, names: Iterable[str], part: TrainedPart) -> list[str]:
    """Names the parameters of a part: those of norms, biases, or weights that get adapters.

    Args:
        model: A timm model.
        names: Names of parameters of it, of trained blocks.
        part: Which of them.

    Returns:
        In the order of `names`.
    """
    if part == "all":
        return list(names)
    own = {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    return [each for each in names if _belongs(*own[each], part)]


@lru_cache(maxsize=256)
def part_shapes(
    name: str,
    blocks: int | Literal["all"],
    part: TrainedPart,
    rank: int = 0,
    reads: Reads = "map",
) -> tuple[tuple[int, ...], ...]:
    """Lists the shapes of the tensors that are trained of a backbone; of some parts it has none.

    Args:
        name: Name of a timm model.
        blocks: How many of its last blocks are trained, or ``all``.
        part: What is trained of them.
        rank: Of adapters.
        reads: What the pooling reads of it.

    Raises:
        BackboneError: If there is no such backbone.
    """
    model = blank_model(name, reads)
    parameters = dict(model.named_parameters())
    names = trained_names(probe(name, reads).block_names, blocks)
    shapes = [tuple(parameters[each].shape) for each in part_names(model, names, part)]
    if part not in ADAPTERS:
        return tuple(shapes)
    # A, B, and of DoRA a magnitude an output.
    own = [((rank, inputs), (outputs, rank), (outputs,)) for outputs, inputs, *_ in shapes]
    return tuple(shape for each in own for shape in each[: 3 if part == "dora" else 2])


def part_size(
    name: str,
    blocks: int | Literal["all"],
    part: TrainedPart,
    rank: int = 0,
    reads: Reads = "map",
) -> int:
    """Counts the parameters of `part_shapes`."""
    return sum(math.prod(shape) for shape in part_shapes(name, blocks, part, rank, reads))


def part_problem(
    name: str, blocks: int | Literal["all"], part: TrainedPart, reads: Reads = "map"
) -> str | None:
    """Says why a part of a backbone cannot be trained alone, or None.

    Raises:
        BackboneError: If there is no such backbone.
    """
    return (
        None
        if part == "all" or part_size(name, blocks, part, 1, reads)
        else nothing_to_train(name, part)
    )


@lru_cache(maxsize=64)
def has_batch_norms(name: str) -> bool:
    """Returns whether a backbone has norms over batches, which keep statistics.

    Raises:
        BackboneError: If there is no such backbone.
    """
    return any(isinstance(module, _BatchNorm) for module in blank_model(name).modules())


def nothing_to_train(name: str, part: TrainedPart) -> str:
    """Says that the trained blocks of a backbone have none of a part."""
    return f"{name} has no {_WORDS[part]} in its trained blocks"


def _belongs(module: nn.Module, name: str, part: TrainedPart) -> bool:
    if part == "biases":
        return name.endswith("bias") and getattr(module, name).ndim == 1
    if part == "norms":
        kinds = (kind.__name__.lower() for kind in type(module).__mro__)
        return any("norm" in kind for kind in kinds) and getattr(module, name).ndim == 1
    return name == "weight" and is_projection(module)


def is_projection(module: nn.Module) -> bool:
    """Returns whether a layer is a plain product with a matrix, at every position alike."""
    # Classes that do more with their weight (standardise it, pad) have a forward of their own.
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
        return module.kernel_size == (1, 1) and module.groups == 1 and module.padding in (0, (0, 0))
    return False
