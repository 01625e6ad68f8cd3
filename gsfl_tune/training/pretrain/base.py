"""What every self-supervised method has, and what several of them use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.pretrain_config import PretrainConfig

Vectors = Sequence[Tensor]


@dataclass(frozen=True)
class Given:
    """Holds what a method compares.

    Attributes:
        views: Representations (B, C) of the views in `Base.shown`.
        taught: The averaged network's, without gradient, of the views in `Base.taught`.
        local: Representations (B, C) of small views.
        positions: (B,) int64, which images they are; None for images of no pretraining.
    """

    views: Vectors
    taught: Vectors = ()
    local: Vectors = ()
    positions: Tensor | None = None


class Base(nn.Module, ABC):
    """Compares the representations of two views of every image.

    Args:
        channels: Size C of a representation.
        config: Section ``pretrain``.
        images: Number of images.

    Attributes:
        shown: Views that the backbone sees, 0 and 1.
        taught: Views that the averaged network sees; empty for methods without one.
        takes_local: Whether the method has a loss for small views (multi-crop).
        projected: Projections (B, D) of the first view in the last loss, without gradient.
    """

    projected: Tensor

    shown: tuple[int, ...] = (0, 1)
    taught: tuple[int, ...] = ()
    takes_local: bool = True

    def __init__(self, channels: int, config: PretrainConfig, images: int) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.images = images
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Makes heads and losses."""

    def forward(
        self,
        views: Vectors,
        taught: Vectors = (),
        local: Vectors = (),
        positions: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a mean over the images of a batch; for arguments see `Given`.

        Small views are compared with the large ones, never with each other (Caron et al., "SwAV",
        NeurIPS 2020, section 3.2): each learns what a larger part of the image shows.
        """
        loss, projected = self.loss(Given(views, taught, local, positions))
        self.projected = projected.detach()
        return loss

    @abstractmethod
    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the loss, and the projections (B, D) of the first view."""

    def momentum(self, progress: float) -> float:
        """Returns the decay of the averaged network.

        Args:
            progress: Share of the steps that are done, 0 to 1.
        """
        return self.config.teacher_momentum

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Lists heads with their averages."""
        return []

    def after_backward(self, epoch: int) -> None:
        """Changes gradients before an update; `epoch` counts from 0."""


@contextmanager
def unchanged(*modules: nn.Module) -> Iterator[None]:
    """Keeps the buffers of modules as they are while images pass: queues, centres, statistics."""
    buffers = [buffer for module in modules for buffer in module.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            # As data, since the graph may refer to the buffer but not to its values.
            buffer.data.copy_(before)


def across(
    compare: Callable[[Tensor, Tensor], Tensor], predicted: Vectors, targets: Vectors
) -> Tensor:
    """Returns the mean of the losses of each view with each target but its own.

    Args:
        compare: Makes a loss of a prediction and a target.
        predicted: (B, D) of each view; those of `targets` come first, in their order.
        targets: (B, D) of the large views.
    """
    losses = [
        compare(one, other)
        for place, one in enumerate(predicted)
        for own, other in enumerate(targets)
        if place != own
    ]
    return torch.stack(losses).mean()


def start_average(module: nn.Module, average: nn.Module) -> None:
    """Gives an average the weights of a module, and no gradients."""
    average.load_state_dict(module.state_dict())
    average.requires_grad_(False)


def rising(start: float, progress: float) -> float:
    """Returns a decay that rises from `start` to 1 as half a cosine; `progress` is 0 to 1."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
