"""What the finetune stage feeds its network: images, or cached activations of its frozen part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data import Annotations, Augment, Batch, DecodedImages
from gsfl_tune.models import Network
from gsfl_tune.models.frozen import Precision
from gsfl_tune.training.context import StageContext

EVAL_BATCH = 64


def prefix_precision(context: StageContext) -> Precision:
    """Precision of frozen blocks in front of trained ones."""
    return "bf16" if context.frozen_bf16 else "fp32"


class Batches(ABC):
    """Batches of a trial's finetune stage, on its device.

    Args:
        context: Of the training that they belong to.
        network: On the device, with the blocks that are trained.
    """

    def __init__(self, context: StageContext, network: Network) -> None:
        data = context.config.data
        self._context = context
        self._size = data.image_size
        self._mean, self._std = network.backbone.preprocessing
        self._augment = Augment(data.augment, self._size, self._mean, self._std)

    @abstractmethod
    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """One epoch of training batches; images that do not fill a batch are left out.

        Args:
            epoch: Epoch of the stage, from 0.
            seed: Of the order, and of the augmentation unless views are fixed.

        Yields:
            As many views an image as the method of the training asks for; of a batch that several
            processes share, this one's images.
        """

    @abstractmethod
    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Inputs for the un-augmented images at positions ``index`` of a part, in this order.

        Args:
            images: Decoded images of the part.
            part: ``pool`` or ``test``.
            index: (N,) positions.
        """

    @abstractmethod
    def of_images(self, images: Tensor) -> Tensor:
        """Inputs for normalised images (B, 3, side, side) on the device."""

    @abstractmethod
    def taught(self, batch: Batch) -> Batch:
        """The batch with what the teacher says of it, where there is a teacher.

        Args:
            batch: Of `train_batches`, after its images were mixed.
        """

    @abstractmethod
    def random(self, count: int) -> Tensor:
        """Inputs of random content for `count` images, as training sees them."""

    @abstractmethod
    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """What makes unit features (B, D) of a batch of inputs, by a network of this stage."""

    def _fixed_draws(self, epoch: int) -> Tensor | None:
        """How the images change that an epoch shows, (V, N, width); None without fixed views."""
        context = self._context
        views = context.workspace.views(context.config)
        if views is None:
            return None
        every = torch.stack([views.draw(view, self._augment) for view in range(views.count)])
        images = torch.arange(views.images)
        shown = [views.shown(epoch, images, place) for place in range(context.method.views)]
        return torch.stack([every[each, images] for each in shown])

    @cached_property
    def _annotations(self) -> Annotations | None:
        """Of the pool, where the method wants them and the source has some."""
        if not self._context.method.annotated:
            return None
        found = self._context.workspace.dataset.annotations("pool")
        return None if found.empty else found
