"""Style normalisation and restitution (SNR) of the map that enters the trained blocks.

Source: Jin et al., "Style Normalization and Restitution for Domain Generalization and Adaptation",
IEEE TMM 2022 (arXiv 2101.03064). Instance norm removes the style of a map F, its channels' means
and deviations over positions: ``F~ = g (F - mu) / sigma + b``. Of the residual ``R = F - F~``, a
gate ``a = sigmoid(W2 relu(W1 mean(R)))`` over channels gives back what the task needs: passed on is
``F~+ = F~ + a R``. ``F~- = F~ + (1 - a) R`` is what the task should not need. A loss that compares
the three is in `gsfl_tune.losses.causality`.

The source has a module behind each stage of a ResNet that is trained as a whole. Here there is one,
in front of the trained blocks, and the gate starts open (0.98): these blocks are pretrained, and
first see about what they know.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from gsfl_tune.models._entry import EntryModule
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads, full_precision, no_autocast
from gsfl_tune.models.mix_style import mix_style_problem, mixed_blocks
from gsfl_tune.models.split import boundary_shape
from gsfl_tune.models.streams import second_layer_of

REDUCTION = 16
# Before the sigmoid.
_OPEN = 4.0
_LEAST = 1e-5

# Name under which terms of the loss read the parts.
RESTITUTED = "restituted"

Restituted = tuple[Tensor, Tensor, Tensor]
"""Means over positions (B, C) of F~, F~+ and F~-."""


class Restitution(EntryModule):
    """Normalises the style of maps and gives back a part of it.

    Args:
        channels: Number of channels C.
        seed: Of its weights.
    """

    def __init__(self, channels: int, seed: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        hidden = max(1, channels // REDUCTION)
        # A training's other random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, last = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, _OPEN)
        self.gate = nn.Sequential(first, nn.ReLU(), last)
        self._parts: Restituted | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Returns F~+ of maps F (B, C, h, w), in their type."""
        with no_autocast(maps.device.type):
            values = full_precision(maps)
            mean = values.mean(dim=(2, 3), keepdim=True)
            variance = (values - mean).square().mean(dim=(2, 3), keepdim=True)
            scale, shift = (each[:, None, None] for each in (self.scale, self.shift))
            normal = scale * (values - mean) * (variance + _LEAST).rsqrt() + shift
            residual = values - normal
            share = self.gate(residual.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
            relevant = normal + share * residual
            if self.training and torch.is_grad_enabled():
                other = normal + (1 - share) * residual
                normal, given, other = (each.mean(dim=(2, 3)) for each in (normal, relevant, other))
                self._parts = normal, given, other
        return relevant.to(maps.dtype)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; parts that nobody took are forgotten, as a copy could not hold them."""
        self._parts = None
        return super().train(mode)

    def take(self) -> Restituted | None:
        """Returns the parts of the last pass that was trained, once."""
        parts, self._parts = self._parts, None
        return parts


def restitution_channels(
    name: str, blocks: int | Literal["all"], image_size: int, reads: Reads = "map"
) -> int:
    """Returns the channels of the map that enters the trained blocks.

    Args:
        name: Name of a timm model.
        blocks: Number of last blocks that are trained, or ``all``: then that of the second block.
        image_size: Side of the images in pixels.
        reads: What its pooling reads.

    Raises:
        BackboneError: If there is no such backbone.
        CannotCut: If no single tensor enters them.
    """
    count = restituted_blocks(name, blocks, reads)
    return boundary_shape(second_layer_of(name)[0], count, image_size, reads)[0]


def restitution_size(channels: int) -> int:
    """Counts the parameters of a module."""
    hidden = max(1, channels // REDUCTION)
    return 2 * channels + (channels + 1) * hidden + (hidden + 1) * channels


def restituted_blocks(name: str, blocks: int | Literal["all"], reads: Reads = "map") -> int:
    """Returns the number of last blocks in front of which the module is."""
    total = probe(name, reads).blocks
    return mixed_blocks(total, total if blocks == "all" else min(blocks, total))


def restitution_problem(
    name: str, blocks: int | Literal["all"], image_size: int, reads: Reads = "map"
) -> str | None:
    """Says why a backbone cannot have the module, or None.

    Raises:
        BackboneError: If there is no such backbone.
    """
    return mix_style_problem(name, restituted_blocks(name, blocks, reads), image_size, reads)
