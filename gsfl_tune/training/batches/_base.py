"""Inputs of the finetune stage: images, or cached activations of the frozen part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data import Annotations, Augment, Batch, DecodedImages
from gsfl_tune.models import Backbone, Network, SplitBackbone
from gsfl_tune.models.frozen_forward import Precision
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.image_sizes import training_sizes
from gsfl_tune.training.part_scores import PartScores

EVAL_BATCH = 64


def prefix_precision(context: StageContext) -> Precision:
    """Returns the precision of frozen blocks in front of trained ones."""
    return "bf16" if context.frozen_bf16 else "fp32"


class Splits:
    """Keeps the cut backbones of a stage, by network and image size.

    Args:
        backbone: Backbone of the trained network.
        split: The same, cut for `size`.
        size: Side of training images in pixels.
    """

    def __init__(self, backbone: Backbone, split: SplitBackbone, size: int) -> None:
        self._known = {(backbone, size): split}

    def of(self, backbone: Backbone, size: int) -> SplitBackbone:
        """Returns a backbone cut for images of `size` pixels.

        Raises:
            CannotCut: If it cannot be cut at this size.
        """
        key = backbone, size
        if key not in self._known:
            self._known[key] = backbone.split(size)
        return self._known[key]


class Batches(ABC):
    """Makes the batches of a trial's finetune stage, on its device.

    Args:
        context: Context of the training.
        network: Network on the device, with the trained blocks.

    Images outside of training may have a side of their own, ``data.eval_image_size`` (Touvron et
    al., "Fixing the Train-test Resolution Discrepancy", NeurIPS 2019).
    """

    def __init__(self, context: StageContext, network: Network) -> None:
        data = context.config.data
        self._context = context
        self._size = data.image_size
        self._eval_size = context.config.eval_image_size
        self._mean, self._std = network.backbone.preprocessing
        self._augment = Augment(data.augment, self._size, self._mean, self._std)
        # Of every epoch; see `gsfl_tune.training.image_sizes`.
        self._sizes = training_sizes(context.config)

    @abstractmethod
    def train_batches(self, epoch: int, seed: int) -> Generator[Batch, None, None]:
        """Yields one epoch of training batches; images that do not fill a batch are left out.

        Args:
            epoch: Epoch of the stage, from 0.
            seed: Seed of the order, and of the augmentation unless views are fixed.

        Yields:
            Batches with as many views per image as the training method needs. If several processes
            share a batch, only this process' images.
        """

    @abstractmethod
    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Yields inputs for the un-augmented images at positions ``index`` of a part, in order.

        Args:
            images: Decoded images of the part.
            part: ``pool`` or ``test``.
            index: (N,) positions.
        """

    @abstractmethod
    def of_images(self, images: Tensor) -> Tensor:
        """Returns inputs for normalised images (B, 3, side, side) on the device."""

    @abstractmethod
    def taught(self, batch: Batch) -> Batch:
        """Adds the scores of the teacher to a batch, where there is a teacher.

        Args:
            batch: Of `train_batches`, after its images were mixed.
        """

    @abstractmethod
    def random(self, count: int) -> Tensor:
        """Returns random inputs for `count` images, of the shape that training uses."""

    @abstractmethod
    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Returns a function from inputs to unit features (B, D), by a network of this stage."""

    @abstractmethod
    def maps(self, network: Network) -> Callable[[Tensor], Tensor] | None:
        """Returns a function from inputs of training to maps, see `gsfl_tune.methods.Passes`."""

    def eval_features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Returns the same for inputs of `eval_batches`."""
        return self._of_size(network, self._eval_size)

    @abstractmethod
    def _of_size(self, network: Network, size: int) -> Callable[[Tensor], Tensor]:
        """Returns the same for inputs of images of a side of `size` pixels."""

    def _fixed_draws(self, epoch: int) -> Tensor | None:
        """Returns the changes of images in an epoch, (V, N, width); None without fixed views."""
        context = self._context
        views = context.workspace.views(context.config)
        if views is None:
            return None
        every = torch.stack([views.draw(view, self._augment) for view in range(views.count)])
        images = torch.arange(views.images)
        shown = [views.shown(epoch, images, place) for place in range(context.method.views)]
        return torch.stack([every[each, images] for each in shown])

    @cached_property
    def annotations(self) -> Annotations | None:
        """Returns annotations of the pool if the method uses them and the source has some."""
        method, dataset = self._context.method, self._context.workspace.dataset
        if not method.annotated:
            return None
        found = dataset.annotations("pool")
        return None if found.empty else method.prepared(found, dataset.pool.side)

    @cached_property
    def part_scores(self) -> PartScores | None:
        """Returns what scores the parts that are found in images of the pool, if some are known."""
        if not self._context.part_names or self.annotations is None:
            return None
        side = self._context.workspace.dataset.pool.side
        return PartScores(self.annotations, side, self._eval_size)
