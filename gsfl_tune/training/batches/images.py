"""Images for the finetune stage: for the whole network, or for a fast copy of its frozen part."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data import (
    Augment,
    Batch,
    DecodedImages,
    center_crop,
    epoch_batches,
    eval_batches,
)
from gsfl_tune.data.unlabelled_batches import WeakAndStrong, unlabelled_batches, weakened
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.losses.distill import TEACHER
from gsfl_tune.models import Network, SplitBackbone
from gsfl_tune.models.frozen_forward import FrozenForward
from gsfl_tune.models.openvino_forward import OpenvinoForward
from gsfl_tune.training.batches._base import EVAL_BATCH, Batches, Splits, prefix_precision
from gsfl_tune.training.caches.engines import prefix_maker
from gsfl_tune.training.context import StageContext


class ImageBatches(Batches):
    """Feeds images to the whole network: fixed views if there are some, else new ones."""

    def train_batches(self, epoch: int, seed: int) -> Generator[Batch, None, None]:
        """Yields augmented images (B, 3, side, side)."""
        context, size = self._context, self._sizes[epoch]
        training = context.config.training
        augment, changes = self._augment, context.config.data.augment
        if context.method.weak_labelled:
            changes = weakened(changes)
        if size != self._size or changes is not augment.config:
            augment = Augment(changes, size, self._mean, self._std)
        batches = epoch_batches(
            context.workspace.dataset.pool,
            context.train_positions.numpy(),
            training.finetune.batch_size,
            seed=seed,
            epoch=epoch,
            transform=augment,
            device=context.device,
            random=self._fixed_draws(epoch),
            share=context.share,
            balance=training.balanced_sampling,
            views=context.method.views,
            annotations=self.annotations,
        )
        for batch, unlabelled in zip(batches, self._unlabelled(epoch, seed), strict=True):
            views = tuple(self.of_images(view) for view in batch.views)
            yield replace(batch, views=views, unlabelled=unlabelled)

    def _unlabelled(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor] | None]:
        """Yields views of images without labels, or None, for each batch of an epoch."""
        context = self._context
        images, size = len(context.train_positions), context.config.training.finetune.batch_size
        batches, each = max(1, images // size), context.method.unlabelled
        if not each:
            yield from repeat(None, batches)
            return
        found = context.workspace.dataset.unlabelled
        if found is None:
            raise UserError(
                f"training.method: found {context.config.training.method}, which needs "
                "data.unlabelled; allowed: another method"
            )
        for weak, strong in unlabelled_batches(
            found,
            batches=batches,
            size=min(images, size),
            each=each,
            seed=seed,
            epoch=epoch,
            transform=self._weak_and_strong,
            device=context.device,
            share=context.share,
        ):
            yield self.of_images(weak), self.of_images(strong)

    @cached_property
    def _weak_and_strong(self) -> WeakAndStrong:
        augment = self._context.config.data.augment
        return WeakAndStrong(augment, self._size, self._mean, self._std)

    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Yields the centres of images (B, 3, side, side)."""

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, self._eval_size, self._mean, self._std)

        device = self._context.device
        for batch in eval_batches(images, index, EVAL_BATCH, transform=transform, device=device):
            yield self.of_images(batch.inputs)

    def of_images(self, images: Tensor) -> Tensor:
        """Returns the images themselves."""
        return images.contiguous(memory_format=torch.channels_last)

    def taught(self, batch: Batch) -> Batch:
        """Adds the scores of the teacher, which sees the images as they are, mixed and cut."""
        teacher = self._context.teacher
        if teacher is None:
            return batch
        found = teacher.logits(batch.inputs, self._mean, self._std)
        return replace(batch, targets=batch.targets.having(**{TEACHER: found}))

    def random(self, count: int) -> Tensor:
        """Returns random images (B, 3, side, side)."""
        shape = (count, 3, self._size, self._size)
        return self.of_images(torch.randn(shape, device=self._context.device))

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Returns the whole network without its head."""
        return network.features

    def maps(self, network: Network) -> Callable[[Tensor], Tensor] | None:
        """Returns the backbone up to the map."""
        return network.maps if network.backbone.gives_map else None

    def _of_size(self, network: Network, size: int) -> Callable[[Tensor], Tensor]:
        # It takes images of any size.
        return network.features


class SplitBatches(ImageBatches):
    """Feeds images to a fast copy of the frozen blocks, then to the trained ones.

    Args:
        context: Context of the training.
        network: Network on the device with trainable last blocks.
        split: Its backbone, cut in front of these blocks.
    """

    def __init__(self, context: StageContext, network: Network, split: SplitBackbone) -> None:
        super().__init__(context, network)
        self._splits = Splits(network.backbone, split, self._size)
        self._precision = prefix_precision(context)
        # By size: the weight average is a separate network with the same frozen blocks.
        self._prefixes: dict[int, FrozenForward] = {}

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Returns frozen copy, trained blocks and pooling of the network as one function."""
        if set(self._sizes) == {self._size}:
            return self._of_size(network, self._size)

        def features(images: Tensor) -> Tensor:
            return self._of_size(network, images.shape[2])(images)

        return features

    def maps(self, network: Network) -> Callable[[Tensor], Tensor] | None:
        """Returns frozen copy and trained blocks of the network, up to the map."""
        split, _ = self._cut(network, self._size)
        if not split.gives_map:
            return None

        def maps(images: Tensor) -> Tensor:
            split, prefix = self._cut(network, images.shape[2])
            return split.maps(_through(prefix, images, split))

        return maps

    def _of_size(self, network: Network, size: int) -> Callable[[Tensor], Tensor]:
        split, prefix = self._cut(network, size)

        def features(images: Tensor) -> Tensor:
            activations = _through(prefix, images, split)
            if network.granularities is not None:
                return network.granular(partial(split.maps, activations)).joined()
            if network.reads_maps:
                return network.pool_maps(split.maps(activations))
            return network.pool(split.suffix(activations))

        return features

    def _cut(self, network: Network, size: int) -> tuple[SplitBackbone, FrozenForward]:
        split = self._splits.of(network.backbone, size)
        if size not in self._prefixes:
            # Sizes of earlier epochs do not come again.
            kept = (self._size, self._eval_size)
            self._prefixes = {key: each for key, each in self._prefixes.items() if key in kept}
            context = self._context
            make = prefix_maker(
                network.backbone.name,
                context.config.training.finetune.blocks,
                images=self._seen(size),
                device=context.device,
                cache_dir=context.workspace.cache_dir,
            )
            # The epoch's random numbers must not depend on who runs it.
            with torch.random.fork_rng(devices=[]):
                self._prefixes[size] = split.frozen_prefix(self._precision, make)
        return split, self._prefixes[size]

    def _seen(self, size: int) -> int:
        """Returns how many images of a size pass in the whole stage; a resume changes nothing."""
        context = self._context
        dataset, method = context.workspace.dataset, context.method
        held = len(dataset.validation_index)
        if context.exact:
            return held + len(dataset.test)
        own = len(context.train_positions) // context.share.size
        own *= method.views + 2 * method.unlabelled
        trained = own * sum(each == size for each in self._sizes)
        return trained + (held * len(self._sizes) if size == self._eval_size else 0)


def _through(prefix: FrozenForward, images: Tensor, split: SplitBackbone) -> Tensor:
    """Returns activations at the boundary, in the layout in which trained blocks are fast."""
    activations: Tensor = prefix(images)
    if split.channels_last and isinstance(prefix, OpenvinoForward):
        return activations.contiguous(memory_format=torch.channels_last)
    return activations
