"""What the finetune stage feeds its network: images, or cached activations of its frozen part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment, center_crop
from gsfl_tune.data.loader import epoch_batches, eval_batches
from gsfl_tune.models import Network, SplitBackbone
from gsfl_tune.models.frozen import Precision

if TYPE_CHECKING:
    from gsfl_tune.data import DecodedImages
    from gsfl_tune.training.trial import Training

EVAL_BATCH = 64


def prefix_precision(training: Training) -> Precision:
    """Precision of frozen blocks in front of trained ones."""
    return "bf16" if training.frozen_bf16 else "fp32"


class Inputs(ABC):
    """Batches of a trial's finetune stage, on its device."""

    @abstractmethod
    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of training batches; images that do not fill a batch are left out.

        Args:
            epoch: Epoch of the stage, from 0.
            seed: Of the order, and of the augmentation unless views are fixed.

        Yields:
            Inputs, and labels (B,) int64: of a batch that several processes share, this one's.
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
    def random(self, count: int) -> Tensor:
        """Inputs of random content for `count` images, as training sees them."""

    @abstractmethod
    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """What makes unit features (B, D) of a batch of inputs, by a network of this stage."""


class ImageInputs(Inputs):
    """Images through the whole network: fixed views where there are some, else new ones."""

    def __init__(self, training: Training, network: Network) -> None:
        data = training.config.data
        self._training = training
        self._size = data.image_size
        self._mean, self._std = network.backbone.preprocessing
        self._augment = Augment(data.augment, self._size, self._mean, self._std)

    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images (B, 3, side, side)."""
        training = self._training
        views = training.workspace.views(training.config)
        random: Tensor | None = None
        if views is not None:
            shown = views.shown(epoch, torch.arange(views.images))
            every = torch.stack([views.draw(view, self._augment) for view in range(views.count)])
            random = every[shown, torch.arange(views.images)]
        batches = epoch_batches(
            training.workspace.dataset.pool,
            training.train_positions.numpy(),
            training.config.training.finetune.batch_size,
            seed=seed,
            epoch=epoch,
            transform=self._augment,
            device=training.device,
            random=random,
            share=training.share,
            balance=training.config.training.balanced_sampling,
        )
        for images, labels, _ in batches:
            yield self.of_images(images), labels

    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Centres of images (B, 3, side, side)."""

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, self._size, self._mean, self._std)

        batches = eval_batches(
            images, index, EVAL_BATCH, transform=transform, device=self._training.device
        )
        for batch, _, _ in batches:
            yield self.of_images(batch)

    def of_images(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images.contiguous(memory_format=torch.channels_last)

    def random(self, count: int) -> Tensor:
        """Random images (B, 3, side, side)."""
        shape = (count, 3, self._size, self._size)
        return self.of_images(torch.randn(shape, device=self._training.device))

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """The whole network without its head."""
        return network.features


class SplitInputs(ImageInputs):
    """Images through a fast copy of the frozen blocks, then through the trained ones.

    Args:
        training: The training that it belongs to.
        network: On the device, its last blocks trainable.
        split: Its backbone, cut in front of them.
    """

    def __init__(self, training: Training, network: Network, split: SplitBackbone) -> None:
        super().__init__(training, network)
        # The weight average is a network of its own; its frozen blocks are the same.
        self._splits = {network.backbone: split}
        self._prefix = split.frozen_prefix(prefix_precision(training))

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """The frozen copy, the trained blocks of the network, its pooling."""
        backbone = network.backbone
        split = self._splits.get(backbone) or backbone.split(self._size)
        self._splits[backbone] = split

        def features(images: Tensor) -> Tensor:
            return network.pool(split.suffix(self._prefix(images)))

        return features
