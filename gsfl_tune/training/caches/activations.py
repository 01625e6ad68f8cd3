"""Activations of frozen blocks in front of trained ones, computed once per node.

Used only with fixed views: with augmentation that is new in every epoch nothing can be cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import Augment, DecodedImages
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.loader import eval_batches, view_batches
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, SplitBackbone
from gsfl_tune.models.frozen_forward import FrozenForward
from gsfl_tune.models.frozen_forward import Precision as Arithmetic
from gsfl_tune.training.caches.engines import prefix_maker
from gsfl_tune.training.caches.features import Precision, View, all_cores, digest

# Part of every cache key; raise it when this file computes other numbers.
CODE_VERSION = 2

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2}
NUMPY: dict[Precision, np.dtype] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}
_BATCH = 64


class ActivationCache:
    """Keeps the cached activations of one frozen part.

    Args:
        cache_dir: Root of the node's caches.
        device: Device that computes them.
        backbone: The whole backbone.
        split: The backbone, cut in front of the trained blocks.
        blocks: Trained blocks, as in the configuration.
        image_size: Side of the images in pixels.
        precision: Precision of the stored activations.
        arithmetic: Precision of the computation.
    """

    def __init__(
        self,
        cache_dir: Path,
        device: torch.device,
        backbone: Backbone,
        split: SplitBackbone,
        *,
        blocks: int | str,
        image_size: int,
        precision: Precision,
        arithmetic: Arithmetic,
    ) -> None:
        self._folder = cache_dir / "prefix"
        self._device = device
        self._backbone = backbone
        self._split = split
        self._blocks = blocks
        self._size = image_size
        self._precision = precision
        self._arithmetic = arithmetic
        self._frozen: FrozenForward | None = None
        self._maps: dict[tuple[str, View | None], np.ndarray] = {}

    def of(self, images: DecodedImages, view: View | None = None) -> np.ndarray:
        """Returns activations of all images, (N, ...), memory-mapped.

        Args:
            images: Decoded images.
            view: The fixed view; None for un-augmented images.
        """
        key = images.digest, view
        if key not in self._maps:
            shape = (len(images), *stored_shape(self._split))
            lock = acquire(
                self._folder / f"{self._key(images, view)}.npy",
                lambda path: self._build(path, images, view, shape),
                what=self._words(images, view),
                size=int(np.prod(shape)) * BYTES[self._precision],
            )
            array = np.load(lock.path, mmap_mode="r")
            lock.keep_with(array)
            self._maps[key] = array
        return self._maps[key]

    def release(self) -> None:
        """Releases the fast copy of the frozen part, which is only needed to build."""
        self._frozen = None

    def _key(self, images: DecodedImages, view: View | None) -> str:
        return digest(
            "prefix", CODE_VERSION, images.digest, self._backbone.digest, self._blocks, self._size,
            self._precision, self._split.shape, self._split.channels_last,
            *([] if self._arithmetic == "fp32" else [self._arithmetic]),
            *(view.key if view is not None else ()),
        )  # fmt: skip

    def _build(
        self, path: Path, images: DecodedImages, view: View | None, shape: tuple[int, ...]
    ) -> None:
        dtype = NUMPY[self._precision]
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        if self._frozen is None:
            make = prefix_maker(
                self._backbone.name,
                self._blocks,
                images=len(images),
                device=self._device,
                cache_dir=self._folder.parent,
            )
            with all_cores(self._device):
                self._frozen = self._split.frozen_prefix(self._arithmetic, make)
        words = self._words(images, view).removeprefix("prefix: ")
        # Written, not mapped: on a full disk a write raises, but a mapped page kills the process.
        with (
            activity(f"computing activations ({words})", len(images), "images") as step,
            path.open("wb") as file,
            all_cores(self._device),
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
        index, device = np.arange(len(images)), self._device
        if view is None:

            def transform(batch: Tensor) -> Tensor:
                return center_crop(batch, self._size, mean, std)

            batches = eval_batches(images, index, _BATCH, transform=transform, device=device)
        else:
            augment = Augment(view.augment, self._size, mean, std)
            batches = view_batches(
                images,
                index,
                _BATCH,
                random=view.views.draw(view.number, augment),
                transform=augment,
                device=device,
            )
        for batch in batches:
            yield batch.inputs

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


def stored_shape(split: SplitBackbone) -> tuple[int, ...]:
    """Returns the shape of one image's activations in the file."""
    if not split.channels_last:
        return split.shape
    channels, height, width = split.shape
    return height, width, channels
