"""Features of a frozen backbone: computed once a node, read by every trial through a memory map."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data import DecodedImages
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.loader import eval_batches
from gsfl_tune.data.locking import build_once
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import (
    Backbone,
    Pooling,
    Projection,
    create_pooling,
    fit_projection,
    projection_channels,
)

# Part of every cache key: raise it when the numbers that this file computes change.
CODE_VERSION = 1

_BATCH = 64


@dataclass(frozen=True)
class FeatureRecipe:
    """Everything besides images and weights that decides a frozen feature."""

    backbone: str
    weights: str
    image_size: int
    pooling: str
    pooling_channels: int | None
    pooling_dim: int | None

    @classmethod
    def of(cls, config: Config) -> FeatureRecipe:
        """Recipe of a configuration; settings that its pooling ignores are left out."""
        model = config.model
        return cls(
            backbone=model.backbone,
            weights=model.weights,
            image_size=config.data.image_size,
            pooling=model.pooling,
            pooling_channels=model.pooling_channels if model.pooling != "average" else None,
            pooling_dim=model.pooling_dim if model.pooling == "compact_bilinear" else None,
        )

    def create_pooling(self, channels: int) -> Pooling:
        """The pooling layer for a map of `channels` channels."""
        if self.pooling_dim is None:
            return create_pooling(self.pooling, channels)
        return create_pooling(self.pooling, channels, dim=self.pooling_dim)


def digest(*parts: object) -> str:
    """Hex digest of a cache key's parts."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


class FeatureExtractor:
    """A frozen backbone with its projection and pooling: images to unit features.

    Args:
        recipe: What to compute.
        backbone: The pretrained backbone; put into eval mode.
        device: Where to compute.
    """

    def __init__(self, recipe: FeatureRecipe, backbone: Backbone, device: torch.device) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.device = device
        self.projection: Projection | None = None
        self._projection_key: str | None = None

    def prepare(self, images: DecodedImages, index: np.ndarray, cache_dir: Path) -> None:
        """Fits the projection on training images, or reads it from the cache.

        Args:
            images: Decoded images of the pool.
            index: Positions of the training images, (N,).
            cache_dir: Root of the node's caches.
        """
        recipe = self.recipe
        wanted = projection_channels(
            recipe.pooling, recipe.pooling_channels, self.backbone.channels
        )
        if wanted is None:
            return
        key = digest(
            "projection", CODE_VERSION, images.digest, index.tobytes(), self.backbone.digest,
            recipe.image_size, wanted,
        )  # fmt: skip

        def build(path: Path) -> None:
            with all_cores(self.device), torch.inference_mode():
                projection = fit_projection(self._maps(images, index), wanted)
            state = {
                name: tensor.contiguous().cpu() for name, tensor in projection.state_dict().items()
            }
            save_file(state, path)

        path = build_once(cache_dir / "projections" / f"{key}.safetensors", build)
        self.projection = Projection(**load_file(path))
        self._projection_key = key

    def pooling(self) -> Pooling:
        """A new pooling layer that fits the (projected) map."""
        source = self.projection if self.projection is not None else self.backbone
        return self.recipe.create_pooling(source.channels)

    def key(self, images: DecodedImages) -> str:
        """Cache key of the features of `images`."""
        recipe = asdict(self.recipe) | {"weights": self.backbone.digest}
        return digest("features", CODE_VERSION, images.digest, recipe, self._projection_key)

    def features(self, images: DecodedImages, cache_dir: Path) -> np.ndarray:
        """Unit features of all images, (N, D) float32, memory-mapped (writes stay private)."""
        path = cache_dir / "features" / f"{self.key(images)}.npy"
        build_once(path, lambda temporary: self._build(images, temporary))
        return np.load(path, mmap_mode="c")

    def _build(self, images: DecodedImages, path: Path) -> None:
        pooling = self.pooling().to(self.device).eval()
        if self.projection is not None:
            self.projection.to(self.device)
        out: np.memmap | None = None
        start = 0
        with all_cores(self.device), torch.inference_mode():
            for maps in self._maps(images, np.arange(len(images))):
                if self.projection is not None:
                    maps = self.projection(maps)
                batch = functional.normalize(pooling(maps).float(), dim=1).cpu().numpy()
                if out is None:
                    shape = (len(images), batch.shape[1])
                    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                out[start : start + len(batch)] = batch
                start += len(batch)
        if out is None:
            raise ValueError("no images to compute features of")
        out.flush()

    def _maps(self, images: DecodedImages, index: np.ndarray) -> Iterator[Tensor]:
        self.backbone.to(self.device).eval()
        mean, std = self.backbone.preprocessing.mean, self.backbone.preprocessing.std
        size = self.recipe.image_size

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, size, mean, std)

        for batch, _, _ in eval_batches(
            images, index, _BATCH, transform=transform, device=self.device
        ):
            yield self.backbone(batch.to(memory_format=torch.channels_last))


@contextmanager
def all_cores(device: torch.device) -> Iterator[None]:
    """Lets the one process that builds use every core: the others wait for it anyway."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(threads, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
