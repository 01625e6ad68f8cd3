"""The sequence of blocks of a timm model, so that only the last blocks can be trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any, Literal

from timm.models import group_parameters
from timm.models.vgg import VGG
from torch import nn

Blocks = tuple[tuple[str, ...], ...]

# No parameter has this name: it shows where a matcher puts unknown names.
_UNKNOWN = "?"


def parameter_blocks(
    model: Any, order: Mapping[str, int], unused: frozenset[str] = frozenset()
) -> Blocks:
    """Returns the names of the parameters of every block, in the order of the forward pass.

    Blocks are timm's own coarse groups (stages of convolutional nets, layers of transformers). For
    a model without groups, they are the children of the list of modules that holds most of it.
    VGG's blocks end at its pools. The stem belongs to the first block. A parameter in no block (a
    neck, a last convolution, biases that all blocks share) joins the block that is active when it
    is first read. Parameters that are read after all blocks form a last block if they are as many
    as in the average block.

    The last block must be worth training alone: it holds at least half as much as the average
    block, and more than one projection (a matrix, a 1 x 1 convolution). Otherwise it joins the
    block before it.

    Args:
        model: A timm model without classifier.
        order: Ranks of the first use of its parameters in a forward pass.
        unused: Parameters to leave out: the feature map does not depend on them.
    """
    groups, others = _groups(model)
    groups = [kept for group in groups if (kept := [n for n in group if n not in unused])]
    behind = _place([name for name in others if name not in unused], groups, order)
    parameters = dict(model.named_parameters())
    total = sum(parameters[name].numel() for name in chain(behind, *groups))
    if behind:
        groups.append(behind)
        if sum(parameters[name].numel() for name in behind) < total / len(groups):
            groups[-2:] = [list(chain(*groups[-2:]))]
    while len(groups) > 1:
        last = [parameters[name] for name in groups[-1]]
        fair = total / len(groups) / 2
        if sum(parameter.numel() for parameter in last) >= fair and not _is_projection(last):
            break
        groups[-2:] = [groups[-2] + groups[-1]]
    return tuple(map(tuple, groups))


def trained_names(blocks: Blocks, count: int | Literal["all"]) -> list[str]:
    """Returns the names of the last blocks' parameters; a count above the total means all."""
    first = 0 if count == "all" else max(0, len(blocks) - count)
    return [name for block in blocks[first:] for name in block]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the outermost modules with parameters of which none is trained."""
    frozen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            frozen.extend(module.modules())
        else:
            for child in module.children():
                visit(child)

    visit(model)
    return frozen


def _groups(model: Any) -> tuple[list[list[str]], list[str]]:
    """Returns blocks, with the stem in the first, and the names of parameters in no block."""
    if isinstance(model, VGG):
        return _vgg(model)
    for coarse in (True, False):
        try:
            groups, others = _matched(model, model.group_matcher(coarse=coarse))
        except Exception:  # a model may lack the method or one of the kinds
            continue
        if len(groups) > 1:
            groups[:2] = [groups[0] + groups[1]]
        return groups, others
    return _listed(model)


def _matched(model: nn.Module, matcher: Any) -> tuple[list[list[str]], list[str]]:
    """Returns timm's groups, and the names that its matcher leaves out."""
    named = [*model.named_parameters(), (_UNKNOWN, None)]
    found = group_parameters(SimpleNamespace(named_parameters=lambda: named), matcher)
    groups = [found[key] for key in sorted(found)]
    # Unknown names come last.
    return groups[:-1], [name for name in groups[-1] if name != _UNKNOWN]


def _listed(model: nn.Module) -> tuple[list[list[str]], list[str]]:
    """Returns the children of the list of modules, nearest to the root, with half of a model."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lists = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 1
    ]
    for path, module in sorted(lists, key=lambda item: item[0].count(".")):
        start = f"{path}." if path else ""
        children = [f"{start}{name}." for name, _ in module.named_children()]
        groups = [[name for name in sizes if name.startswith(child)] for child in children]
        groups = [group for group in groups if group]
        held = {name for group in groups for name in group}
        if len(groups) > 1 and 2 * sum(sizes[name] for name in held) >= sum(sizes.values()):
            return groups, [name for name in sizes if name not in held]
    return [list(sizes)], []


def _place(names: Iterable[str], groups: list[list[str]], order: Mapping[str, int]) -> list[str]:
    """Adds parameters to the block that is active at their first read; returns the others."""
    ends = [max(order.get(name, 0) for name in group) for group in groups]
    behind: list[str] = []
    for name in names:
        used = order.get(name, math.inf)
        place = next(
            (group for group, end in zip(groups, ends, strict=True) if used <= end), behind
        )
        place.append(name)
    return behind


def _is_projection(parameters: Sequence[nn.Parameter]) -> bool:
    """Returns whether they are norms, biases and at most one weight for single positions."""
    weights = [p for p in parameters if p.ndim > 1]
    return len(weights) <= 1 and all(p.numel() == p.shape[0] * p.shape[1] for p in weights)


def _vgg(model: VGG) -> tuple[list[list[str]], list[str]]:
    groups: list[list[str]] = [[]]
    for index, layer in enumerate(model.features):
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
        groups[-1] += [f"features.{index}.{name}" for name, _ in layer.named_parameters()]
    held = {name for group in groups for name in group}
    return groups, [name for name, _ in model.named_parameters() if name not in held]
