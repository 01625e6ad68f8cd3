"""The sequence of blocks of a timm model, so that only the last ones can be trained."""

from __future__ import annotations

from typing import Any, Literal

from timm.models import group_parameters
from timm.models.vgg import VGG
from torch import nn


def parameter_blocks(model: Any, unused: frozenset[str] = frozenset()) -> list[list[str]]:
    """Names of the parameters of every block, in the order of the forward pass.

    timm's own coarse grouping (stages of convolutional nets, layers of transformers), with the
    stem in the first block and a lone last norm in the last. VGG's blocks end at its pools.

    Args:
        model: A timm model without classifier.
        unused: Parameters to leave out: the feature map does not depend on them.
    """
    if isinstance(model, VGG):
        groups = _vgg(model)
    elif hasattr(model, "group_matcher"):
        found = group_parameters(model, model.group_matcher(coarse=True))
        groups = [found[k] for k in sorted(found)]
    else:
        groups = [[name for name, _ in model.named_parameters()]]
    groups = [kept for group in groups if (kept := [n for n in group if n not in unused])]
    if len(groups) > 1 and not isinstance(model, VGG):
        groups[:2] = [groups[0] + groups[1]]
    parameters = dict(model.named_parameters())
    if len(groups) > 1 and all(parameters[n].ndim <= 1 for n in groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def trained_names(
    model: Any, blocks: int | Literal["all"], unused: frozenset[str] = frozenset()
) -> list[str]:
    """Names of the parameters of the last blocks; more blocks than there are mean all."""
    groups = parameter_blocks(model, unused)
    count = len(groups) if blocks == "all" else min(blocks, len(groups))
    return [name for group in groups[len(groups) - count :] for name in group]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that hold parameters, none of them trained, with everything inside them."""
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


def _vgg(model: VGG) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for index, layer in enumerate(model.features):
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
        groups[-1] += [f"features.{index}.{name}" for name, _ in layer.named_parameters()]
    return groups
