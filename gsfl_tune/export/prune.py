"""Structured pruning: removes whole channels of the backbone, which speeds up every format.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, by torch-pruning.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.export.extras import require
from gsfl_tune.models import Network

# Vector units are faster with multiples of it; narrow networks would lose too much by it.
_ROUND_TO = 8
_WIDE = 64


def prune(network: Network, ratio: float, image_size: int) -> Network:
    """Removes the least important channels of every group of layers that depend on each other.

    Importance is the group's L2 norm. The channels of what the pooling reads stay: pooling and head
    are untouched.

    Args:
        network: Not changed.
        ratio: Share of the channels to remove.
        image_size: Side of the images in pixels.

    Returns:
        A smaller copy for further training, in eval mode on the CPU.

    Raises:
        UserError: If torch-pruning is not installed, or the backbone cannot be pruned.
    """
    require("--prune", "torch_pruning")
    pruned = copy.deepcopy(network).cpu().eval()
    pruned.requires_grad_(True)  # torch-pruning follows gradients through the network
    name = pruned.backbone.name
    if pruned.backbone.restitution is not None:
        raise UserError(
            f"--prune: found {ratio:g} for a network with training.finetune.snr, whose channels "
            "are tied to its weights; allowed: 0"
        )
    if pruned.recurrent is not None:
        raise UserError(
            f"--prune: found {ratio:g} for a network with training.method: recurrent_attention, "
            "whose regions are proposed from all channels; allowed: 0"
        )
    if pruned.parts is not None:
        raise UserError(
            f"--prune: found {ratio:g} for a network with training.method: part_rcnn, whose parts "
            "are found on all channels; allowed: 0"
        )
    if pruned.attention is not None:
        raise UserError(
            f"--prune: found {ratio:g} for a network with training.method: "
            "counterfactual_attention, whose attention reads all channels; allowed: 0"
        )
    if pruned.granularities is not None:
        raise UserError(
            f"--prune: found {ratio:g} for a network with training.pmg.prediction: joint, whose "
            "classifiers read all channels behind several blocks; allowed: 0"
        )
    before = sum(p.numel() for p in pruned.backbone.parameters())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _prune(pruned.backbone, ratio, image_size)
        with torch.no_grad():
            read = pruned.backbone(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # torch-pruning raises many kinds
        raise UserError(
            f"--prune: {name} cannot be pruned ({first_line(error)}); "
            "allowed: convolutional backbones"
        ) from error
    after = sum(p.numel() for p in pruned.backbone.parameters())
    channels = read.shape[1 if pruned.backbone.reads == "map" else -1]
    if channels != pruned.backbone.channels or after >= before:
        raise UserError(
            f"--prune: found nothing to remove in {name} at a ratio of {ratio:g}; allowed: "
            "convolutional backbones, and a larger ratio"
        )
    return pruned.eval().requires_grad_(False)


class _Marked(nn.Module):
    """Wraps a backbone with a layer behind it, which marks what its output depends on."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels
        of_map = backbone.reads == "map"
        self.marker = nn.Conv2d(channels, 1, 1) if of_map else nn.Linear(channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        marked: Tensor = self.marker(self.backbone(images))
        return marked


def _prune(backbone: Any, ratio: float, image_size: int) -> None:
    import torch_pruning as tp

    marked = _Marked(backbone)
    example = torch.zeros(1, 3, image_size, image_size)
    kinds = [nn.Conv2d, nn.Linear]
    graph = tp.DependencyGraph().build_dependency(marked, example_inputs=example)
    kept: set[nn.Module] = {marked.marker}
    narrowest = min(m.out_channels for m in backbone.modules() if isinstance(m, nn.Conv2d))
    for group in graph.get_all_groups(ignored_layers=[marked.marker], root_module_types=kinds):
        layers = [dependency.target.module for dependency, _ in group]
        if marked.marker in layers:
            kept.update(m for m in layers if isinstance(m, nn.Conv2d | nn.Linear))
    pruner = tp.pruner.BasePruner(
        marked,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=list(kept),
        round_to=_ROUND_TO if narrowest >= _WIDE // 4 else None,
        root_module_types=kinds,
    )
    pruner.step()
