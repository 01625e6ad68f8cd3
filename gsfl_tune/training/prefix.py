"""Activations of the frozen part of a network whose last blocks are trained: computed once a node.

Only with fixed views: an augmentation that is new in every epoch has nothing to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import Augment, DecodedImages
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.batch_share import BatchShare
from gsfl_tune.data.loader import epoch_order, eval_batches, view_batches
from gsfl_tune.data.prefetch import prefetch
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Network, SplitBackbone
from gsfl_tune.models.frozen import FrozenForward
from gsfl_tune.training.features import View, all_cores, digest
from gsfl_tune.training.inputs import EVAL_BATCH, Inputs, prefix_precision
from gsfl_tune.training.workspace import allow_open_files

if TYPE_CHECKING:
    from gsfl_tune.training.trial import Training

# Part of every cache key: raise it when the numbers that this file computes change.
CODE_VERSION = 2

BYTES = {"fp32": 4, "fp16": 2}
_NUMPY: dict[str, np.dtype] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


class PrefixInputs(Inputs):
    """Activations in front of the trained blocks, from the cache of the node.

    Args:
        training: The training that it belongs to; its configuration has fixed views.
        network: On the device, its last blocks trainable.
        split: Its backbone, cut in front of them.
    """

    def __init__(self, training: Training, network: Network, split: SplitBackbone) -> None:
        config = training.config
        self._training = training
        self._backbone = network.backbone
        self._size = config.data.image_size
        self._split = split
        self._frozen: FrozenForward | None = None
        # The weight average is a network of its own.
        self._splits = {network.backbone: self._split}
        self._precision = config.training.cache_precision
        self._maps: dict[tuple[str, int | None], np.ndarray] = {}

    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Activations of the views that the epoch shows."""
        training = self._training
        pool = training.workspace.dataset.pool
        views = training.workspace.views(training.config)
        assert views is not None, "without fixed views there is no cache"
        allow_open_files(4 * views.count)  # those of the head stage's features may be open too
        maps = [self._map(pool, "pool", view) for view in range(views.count)]
        size = training.config.training.finetune.batch_size
        order = epoch_order(
            training.train_positions.numpy(),
            pool.labels,
            seed=seed,
            epoch=epoch,
            balance=training.config.training.balanced_sampling,
        )
        if len(order) >= size:
            order = order[: len(order) - len(order) % size]
        shown = views.shown(epoch, torch.from_numpy(order)).numpy()
        labels = training.labels[torch.from_numpy(order).to(training.device)]
        starts = range(0, len(order), size)
        parts = [_part(start, min(size, len(order) - start), training.share) for start in starts]
        activations = self._batches(
            [[(maps[v], p) for v, p in zip(shown[s], order[s], strict=True)] for s in parts]
        )
        for part, batch in zip(parts, activations, strict=True):
            yield batch, labels[part]

    def eval_batches(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Activations of the centres of images."""
        map_ = self._map(images, part, None)
        starts = range(0, len(index), EVAL_BATCH)
        return self._batches(
            [[(map_, position) for position in index[s : s + EVAL_BATCH]] for s in starts]
        )

    def of_images(self, images: Tensor) -> Tensor:
        """Activations of normalised images, computed here and now."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return self._split.prefix(images).float()

    def random(self, count: int) -> Tensor:
        """Random activations (B, *shape)."""
        shape = (count, *self._split.shape)
        activations = torch.randn(shape, device=self._training.device)
        if self._split.channels_last:
            activations = activations.contiguous(memory_format=torch.channels_last)
        return activations

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """The trained part of a network, without its head."""
        backbone = network.backbone
        split = self._splits.get(backbone) or backbone.split(self._size)
        self._splits[backbone] = split

        def features(activations: Tensor) -> Tensor:
            return network.pool(split.suffix(activations))

        return features

    def _batches(self, rows: list[list[tuple[np.ndarray, int]]]) -> Iterator[Tensor]:
        """Batches of single rows of memory maps, float32 on the device."""
        self._frozen = None  # what has to be built is
        device = self._training.device
        dtype = torch.from_numpy(np.empty(0, _NUMPY[self._precision])).dtype
        shape = stored_shape(self._split)

        def batches() -> Iterator[Tensor]:
            for chosen in rows:
                batch = torch.empty(
                    (len(chosen), *shape), dtype=dtype, pin_memory=device.type == "cuda"
                )
                values = batch.numpy()
                for place, (source, position) in enumerate(chosen):
                    values[place] = source[position]
                batch = batch.to(device, non_blocking=True).float()
                yield batch.permute(0, 3, 1, 2) if self._split.channels_last else batch

        return prefetch(batches)

    def _map(self, images: DecodedImages, part: str, number: int | None) -> np.ndarray:
        """Activations of all images of a part, (N, ...), memory-mapped.

        Args:
            images: Decoded images of the part.
            part: ``pool`` or ``test``.
            number: Of the fixed view; None for the images as they are.
        """
        if (part, number) not in self._maps:
            view = None
            if number is not None:
                config = self._training.config
                views = self._training.workspace.views(config)
                assert views is not None
                view = View(views, number, config.data.augment)
            shape = (len(images), *stored_shape(self._split))
            lock = acquire(
                self._training.workspace.cache_dir / "prefix" / f"{self._key(images, view)}.npy",
                lambda path: self._build(path, images, view, shape),
                what=self._words(images, view),
                size=int(np.prod(shape)) * BYTES[self._precision],
            )
            array = np.load(lock.path, mmap_mode="r")
            lock.keep_with(array)
            self._maps[part, number] = array
        return self._maps[part, number]

    def _key(self, images: DecodedImages, view: View | None) -> str:
        backbone, split = self._backbone, self._split
        precision = prefix_precision(self._training)
        return digest(
            "prefix", CODE_VERSION, images.digest, backbone.digest, self._blocks, self._size,
            self._precision, split.shape, split.channels_last,
            *([] if precision == "fp32" else [precision]),
            *(view.key if view is not None else ()),
        )  # fmt: skip

    @property
    def _blocks(self) -> int | str:
        return self._training.config.training.finetune.blocks

    def _build(
        self, path: Path, images: DecodedImages, view: View | None, shape: tuple[int, ...]
    ) -> None:
        dtype = _NUMPY[self._precision]
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        device = self._training.device
        if self._frozen is None:
            self._frozen = self._split.frozen_prefix(prefix_precision(self._training))
        words = self._words(images, view).removeprefix("prefix: ")
        # Written and not mapped: on a full disk a write fails, a mapped page kills the process.
        with (
            activity(f"computing activations ({words})", len(images), "images") as step,
            path.open("wb") as file,
            all_cores(device),
            torch.inference_mode(),
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for batch in self._images(images, view):
                activations = self._frozen(batch)
                if self._split.channels_last:
                    activations = activations.permute(0, 2, 3, 1)
                values = activations.cpu().numpy()
                with np.errstate(over="ignore"):
                    values = np.ascontiguousarray(values, dtype=dtype)
                if not np.isfinite(values).all():
                    raise self._out_of_range()
                file.write(values.data)
                step.done += len(batch)

    def _images(self, images: DecodedImages, view: View | None) -> Iterator[Tensor]:
        mean, std = self._backbone.preprocessing
        index = np.arange(len(images))
        device = self._training.device
        if view is None:

            def transform(batch: Tensor) -> Tensor:
                return center_crop(batch, self._size, mean, std)

            batches = eval_batches(images, index, EVAL_BATCH, transform=transform, device=device)
        else:
            augment = Augment(view.augment, self._size, mean, std)
            batches = view_batches(
                images,
                index,
                EVAL_BATCH,
                random=view.views.draw(view.number, augment),
                transform=augment,
                device=device,
            )
        for batch, _, _ in batches:
            yield batch

    def _out_of_range(self) -> UserError:
        if self._precision == "fp16":
            return UserError(
                "training.cache_precision: found fp16, which does not hold the activations of "
                f"{self._backbone.name} in front of its last {self._blocks} blocks; allowed: fp32"
            )
        return UserError(
            f"model.backbone: {self._backbone.name} gives activations that are not finite"
        )

    def _words(self, images: DecodedImages, view: View | None) -> str:
        parts = [self._backbone.name, f"last {self._blocks} blocks", f"{self._size} px"]
        parts += [images.name] if images.name else []
        parts += [f"view {view.number}"] if view is not None else []
        parts += [self._precision] if self._precision != "fp32" else []
        return "prefix: " + ", ".join(parts)


def _part(start: int, count: int, share: BatchShare) -> slice:
    """A process' share of the `count` images that begin at `start`."""
    own = share.of(count)
    return slice(start + own.start, start + own.stop)


def stored_shape(split: SplitBackbone) -> tuple[int, ...]:
    """Shape of one image's activations as they lie in the file."""
    if not split.channels_last:
        return split.shape
    channels, height, width = split.shape
    return height, width, channels
