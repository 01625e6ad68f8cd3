"""Cached activations for the finetune stage: its frozen part never runs again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data import Annotations, Batch, DecodedImages, Targets
from gsfl_tune.data.batch_share import BatchShare
from gsfl_tune.data.loader import epoch_order
from gsfl_tune.data.prefetch import prefetch
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.losses.distill import TEACHER
from gsfl_tune.models import Network, SplitBackbone
from gsfl_tune.training.batches._base import EVAL_BATCH, Batches, Splits, prefix_precision
from gsfl_tune.training.caches.activations import NUMPY, ActivationCache
from gsfl_tune.training.caches.features import Precision, View
from gsfl_tune.training.caches.open_files import allow_open_files
from gsfl_tune.training.context import StageContext

# Rows of memory maps.
Rows = list[tuple[np.ndarray, int]]


class ActivationBatches(Batches):
    """Reads activations in front of the trained blocks from the node's cache.

    Args:
        context: Context of the training; its configuration has fixed views.
        network: Network on the device with trainable last blocks.
        split: Its backbone, cut in front of these blocks.
    """

    def __init__(self, context: StageContext, network: Network, split: SplitBackbone) -> None:
        super().__init__(context, network)
        if context.method.unlabelled:
            raise UserError(
                f"data.views: found views with method {context.config.training.method}, allowed 0: "
                "images without labels are changed anew in every epoch"
            )
        self._split = split
        self._splits = Splits(network.backbone, split, self._size)
        stored = context.config.training.cache_precision
        # Answers of a bundle come from activations that are not rounded.
        self._stored: Precision = "fp32" if context.exact else stored
        self._dtype = torch.from_numpy(np.empty(0, NUMPY[self._stored])).dtype
        self._cache = self._cache_of(network, self._size)
        self._eval_cache = self._cache
        if self._eval_size != self._size:
            self._eval_cache = self._cache_of(network, self._eval_size)

    def _cache_of(self, network: Network, size: int) -> ActivationCache:
        training = self._context.config.training
        return ActivationCache(
            self._context.workspace.cache_dir,
            self._context.device,
            network.backbone,
            self._splits.of(network.backbone, size),
            blocks=training.finetune.blocks,
            image_size=size,
            precision=self._stored,
            arithmetic=prefix_precision(self._context),
        )

    def train_batches(self, epoch: int, seed: int) -> Generator[Batch, None, None]:
        """Yields activations of the views of an epoch."""
        context = self._context
        training = context.config.training
        pool = context.workspace.dataset.pool
        views = context.workspace.views(context.config)
        assert views is not None, "without fixed views there is no cache"
        allow_open_files(4 * views.count)  # files of the head stage's features may be open too
        augment = context.config.data.augment
        maps = [self._cache.of(pool, View(views, i, augment)) for i in range(views.count)]
        size = training.finetune.batch_size
        order = epoch_order(
            context.train_positions.numpy(),
            pool.labels,
            seed=seed,
            epoch=epoch,
            balance=training.balanced_sampling,
        )
        if len(order) >= size:
            order = order[: len(order) - len(order) % size]
        positions = torch.from_numpy(order)
        numbers = range(context.method.views)
        shown = [views.shown(epoch, positions, place).numpy() for place in numbers]
        labels = context.labels[positions.to(context.device)]
        starts = range(0, len(order), size)
        parts = [_part(start, min(size, len(order) - start), context.share) for start in starts]
        activations = self._read(
            [
                [[(maps[v], p) for v, p in zip(own[s], order[s], strict=True)] for own in shown]
                for s in parts
            ]
        )
        moved, taught = self._moved(epoch), self._teacher_tables()
        for part, batch in zip(parts, activations, strict=True):
            annotations, extras = None, {}
            if taught is not None:
                pairs = zip(shown[0][part].tolist(), order[part].tolist(), strict=True)
                rows = torch.stack([taught[view][position] for view, position in pairs])
                extras[TEACHER] = rows.to(context.device)
            if moved is not None:
                annotations = tuple(each.rows(order[part]) for each in moved)
            targets = Targets(labels[part], extras=extras)
            side = None if annotations is None else self._size
            yield Batch(batch, targets, positions[part], annotations, side=side)

    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Yields activations of the images' centres."""
        if part == "pool":
            # Training sees views. Of the pool, validation images are seen as they are, and those
            # that the evidence asks for.
            held = self._context.workspace.dataset.validation_index
            wanted = held if np.isin(index, held).all() else np.unique(index)
            images, index = images.at(wanted), np.searchsorted(wanted, index)
        map_ = self._eval_cache.of(images)
        starts = range(0, len(index), EVAL_BATCH)
        batches = self._read(
            [[[(map_, position) for position in index[s : s + EVAL_BATCH]]] for s in starts]
        )
        return (activations for (activations,) in batches)

    def of_images(self, images: Tensor) -> Tensor:
        """Computes activations of normalised images, without the cache."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return self._split.prefix(images).float()

    def taught(self, batch: Batch) -> Batch:
        """Returns the batch: it has the scores already, as the teacher saw the views before."""
        return batch

    def random(self, count: int) -> Tensor:
        """Returns random activations (B, *shape)."""
        shape = (count, *self._split.shape)
        activations = torch.randn(shape, device=self._context.device)
        if self._split.channels_last:
            activations = activations.contiguous(memory_format=torch.channels_last)
        return activations

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Returns the trained part of a network, without its head."""
        return self._of_size(network, self._size)

    def maps(self, network: Network) -> Callable[[Tensor], Tensor] | None:
        """Returns the trained part of a network up to the map."""
        split = self._splits.of(network.backbone, self._size)
        return split.maps if split.gives_map else None

    def _of_size(self, network: Network, size: int) -> Callable[[Tensor], Tensor]:
        split = self._splits.of(network.backbone, size)

        def features(activations: Tensor) -> Tensor:
            if network.reads_maps:
                return network.pool_maps(split.maps(activations))
            return network.pool(split.suffix(activations))

        return features

    def _teacher_tables(self) -> list[Tensor] | None:
        """Returns the teacher's scores of every fixed view of the pool."""
        context = self._context
        if context.teacher is None:
            return None
        return context.workspace.teacher_tables(context.config, views=True)

    def _moved(self, epoch: int) -> list[Annotations] | None:
        """Returns annotations of the pool, moved to the views of an epoch."""
        draws = None if self.annotations is None else self._fixed_draws(epoch)
        if self.annotations is None or draws is None:
            return None
        side = self._context.workspace.dataset.pool.side
        return [
            self.annotations.moved(self._augment.matrices(each, side).numpy()) for each in draws
        ]

    def _read(self, batches: list[list[Rows]]) -> Iterator[tuple[Tensor, ...]]:
        """Yields batches of rows of memory maps: one tensor per view, float32 on the device."""
        self._cache.release()
        self._eval_cache.release()
        device = self._context.device

        def view(rows: Rows) -> Tensor:
            shape = rows[0][0].shape[1:]
            batch = torch.empty(
                (len(rows), *shape), dtype=self._dtype, pin_memory=device.type == "cuda"
            )
            values = batch.numpy()
            for place, (source, position) in enumerate(rows):
                values[place] = source[position]
            batch = batch.to(device, non_blocking=True).float()
            return batch.permute(0, 3, 1, 2) if self._split.channels_last else batch

        def read() -> Iterator[tuple[Tensor, ...]]:
            for batch in batches:
                yield tuple(view(rows) for rows in batch)

        return prefetch(read)


def _part(start: int, count: int, share: BatchShare) -> slice:
    """Returns a process' share of the `count` images that begin at `start`."""
    own = share.of(count)
    return slice(start + own.start, start + own.stop)
