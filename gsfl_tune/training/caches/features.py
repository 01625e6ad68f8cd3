"""Features of a frozen backbone: computed once per node, memory-mapped by every trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from gsfl_tune.activity import Activity, activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import Augment, DecodedImages, Views
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.loader import eval_batches, view_batches
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.models import (
    Backbone,
    Pooling,
    Projection,
    Reads,
    Weights,
    create_pooling,
    fit_projection,
    pooled_channels,
    pooling_class,
    pooling_package,
    weights_words,
)
from gsfl_tune.models.frozen_forward import Arithmetic, FrozenForward
from gsfl_tune.training.caches.all_cores import all_cores
from gsfl_tune.training.caches.engines import fast_forward
from gsfl_tune.training.caches.int8 import Int8Backbone, int8_backbone
from gsfl_tune.training.caches.keys import digest
from gsfl_tune.training.caches.screening import with_head

# Part of every cache key; raise it when this file computes other numbers.
CODE_VERSION = 2

Precision = Literal["fp32", "fp16"]

_BATCH = 64
_NUMPY: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


@dataclass(frozen=True)
class FeatureRecipe:
    """Holds the settings that decide a frozen feature, besides images and weights.

    Backbone and weights are those of both streams if there are two; its name says a second layer.
    """

    backbone: str
    weights: Weights
    image_size: int
    pooling: str
    pooling_channels: int | None
    pooling_dim: int | None
    gem_power: float | None = None
    attention_heads: int | None = None
    arithmetic: Arithmetic = "fp32"

    @classmethod
    def of(cls, config: Config) -> FeatureRecipe:
        """Returns the recipe of a configuration; settings that its pooling ignores are left out."""
        model, asked = config.model, config.model.feature_precision
        pooling = pooling_class(model.pooling)
        return cls(
            backbone=model.extractor,
            weights=model.extractor_weights,
            image_size=config.data.image_size,
            pooling=model.pooling,
            pooling_channels=model.pooling_channels if pooling.projected_channels else None,
            pooling_dim=model.pooling_dim if pooling.takes_dim else None,
            gem_power=model.gem_power if pooling.takes_power else None,
            attention_heads=model.attention_heads if pooling.takes_heads else None,
            # `auto` is for a search, which replaces it before it begins.
            arithmetic="fp32" if asked == "auto" else asked,
        )

    @property
    def frozen(self) -> FeatureRecipe:
        """Returns the recipe of features before anything is trained: what a pooling starts as."""
        started = pooling_class(self.pooling).starts_as
        return replace(self, pooling=started, attention_heads=None) if started else self

    @property
    def reads(self) -> Reads:
        """Returns what the pooling reads of the backbone."""
        return pooling_class(self.pooling).reads

    def create_pooling(self, channels: int, second: int = 0) -> Pooling:
        """Creates the pooling layer.

        Args:
            channels: Channels of its map.
            second: How many of them are of a second stream or layer.
        """
        settings = {
            "dim": self.pooling_dim,
            "power": self.gem_power,
            "heads": self.attention_heads,
        }
        given: dict[str, Any] = {key: each for key, each in settings.items() if each is not None}
        # Others pool the channels of two layers alike.
        second = second if pooling_class(self.pooling).takes_streams else 0
        return create_pooling(self.pooling, channels, second=second, **given)


@dataclass(frozen=True)
class View:
    """Describes one fixed augmented view of every image of the pool.

    Attributes:
        views: Its set of views.
        number: Its number, 0..count-1.
        augment: Strength of the changes.
    """

    views: Views
    number: int
    augment: AugmentConfig

    @property
    def key(self) -> tuple[object, ...]:
        """Returns what decides its pixels; the number of other views does not."""
        return (self.views.seed, self.number, sorted(self.augment.recipe().items()))


class FeatureExtractor:
    """Computes unit features of images by a frozen backbone with its projection and pooling.

    Args:
        recipe: Settings of the features.
        backbone: The pretrained backbone, read as the recipe says; it is not changed or moved.
        device: Device of the computation.
    """

    def __init__(self, recipe: FeatureRecipe, backbone: Backbone, device: torch.device) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.device = device
        self.projection: Projection | None = None
        self._projection_key: str | None = None
        self._int8: Int8Backbone | None = None
        self._fast: FrozenForward | None = None
        self._full: FeatureExtractor | None = None
        self._made_for = 0

    def prepare(self, images: DecodedImages, index: np.ndarray, cache_dir: Path) -> None:
        """Fits the projection on training images, or reads it from the cache; also int8's ranges.

        Args:
            images: Decoded images of the pool.
            index: Positions of the training images, (N,).
            cache_dir: Root of the node's caches.
        """
        recipe = self.recipe
        if recipe.arithmetic == "int8":
            found = int8_backbone(self.backbone, recipe.image_size, images, index, cache_dir)
            self._int8 = found
        kept, of_second = self._pooled()
        if kept == self.backbone.channels:
            return
        wanted = (kept - of_second, of_second) if of_second else kept
        key = digest(
            "projection", CODE_VERSION, images.digest, index.tobytes(), self.backbone.digest,
            recipe.image_size, wanted, *self._computed,
        )  # fmt: skip

        def build(path: Path) -> None:
            words = f"fitting the projection of {recipe.backbone}"
            with (
                activity(words, len(index), "images") as step,
                all_cores(self.device),
                torch.inference_mode(),
            ):
                maps = self._maps(images, index, cache_dir, step=step)
                projection = fit_projection(maps, wanted, second=self.backbone.second_channels)
            state = {
                name: tensor.contiguous().cpu() for name, tensor in projection.state_dict().items()
            }
            save_file(state, path)

        file = cache_dir / "projections" / f"{key}.safetensors"
        words = weights_words(recipe.weights)
        what = f"{recipe.backbone}, {words}, {recipe.image_size} px, {kept} channels"
        with acquire(file, build, what=what) as path:
            self.projection = Projection(**load_file(path))
        self._projection_key = key

    @property
    def refused(self) -> str:
        """Returns why features are in fp32 though int8 was asked for; empty if nothing was."""
        return self._int8.refused if self._int8 else ""

    @property
    def _arithmetic(self) -> Arithmetic:
        """Returns the precision of the computation, without an int8 that was refused."""
        return "fp32" if self.refused else self.recipe.arithmetic

    @property
    def _computed(self) -> tuple[str, ...]:
        """Returns the part of a key that names the computation; none for fp32."""
        if self._arithmetic == "int8":
            assert self._int8 is not None, "int8 needs `prepare`"
            return ("in int8", self._int8.key)
        return () if self._arithmetic == "fp32" else (f"in {self._arithmetic}",)

    def in_full(self) -> FeatureExtractor:
        """Returns what computes in fp32 with the same projection, as a bundle does."""
        if self._arithmetic == "fp32":
            return self
        if self._full is None:
            recipe = replace(self.recipe, arithmetic="fp32")
            self._full = FeatureExtractor(recipe, self.backbone, self.device)
            self._full.projection = self.projection
            self._full._projection_key = self._projection_key
        return self._full

    def pooling(self) -> Pooling:
        """Returns a new pooling layer that fits the (projected) map."""
        return with_head(self.recipe.create_pooling(*self._pooled()), self.backbone)

    def _pooled(self) -> tuple[int, int]:
        """Returns the channels that the pooling sees, and how many are of a second stream."""
        recipe, backbone = self.recipe, self.backbone
        return pooled_channels(
            recipe.pooling, recipe.pooling_channels, backbone.channels, backbone.second_channels
        )

    def key(
        self, images: DecodedImages, precision: Precision = "fp32", view: View | None = None
    ) -> str:
        """Returns the cache key of the features of `images`."""
        frozen = self.recipe.frozen
        recipe = asdict(frozen) | {"weights": self.backbone.digest}
        for later in ("gem_power", "attention_heads"):
            if recipe[later] is None:  # as of versions without it
                del recipe[later]
        # What bf16 adds to the recipe is older than `_computed`.
        if self._arithmetic != "bf16":
            del recipe["arithmetic"]
        further: list[str] = [] if precision == "fp32" else [precision]
        if self._arithmetic == "int8":
            further += self._computed
        return digest(
            "features", CODE_VERSION, images.digest, recipe, self._projection_key, *further,
            *(view.key if view is not None else ()), *pooling_package(frozen.pooling),
        )  # fmt: skip

    def features(
        self,
        images: DecodedImages,
        cache_dir: Path,
        *,
        precision: Precision = "fp32",
        view: View | None = None,
    ) -> Tensor:
        """Returns unit features of all images.

        Args:
            images: Decoded images.
            cache_dir: Root of the node's caches.
            precision: Precision of the stored features.
            view: The view to compute; None for un-augmented images.

        Returns:
            (N, D) float32 or float16 on the CPU, memory-mapped (writes stay private). The cache
            keeps the file as long as the tensor exists.

        Raises:
            EnvironmentProblem: If the cache cannot be written.
        """
        dim = self.pooling().dim
        lock = acquire(
            cache_dir / "features" / f"{self.key(images, precision, view)}.npy",
            lambda path: self._build(images, path, (len(images), dim), precision, view, cache_dir),
            what=self._words(images, precision, view),
            size=len(images) * dim * _NUMPY[precision].itemsize,
        )
        array = np.load(lock.path, mmap_mode="c")
        lock.keep_with(array)
        return torch.from_numpy(array)

    def _build(
        self,
        images: DecodedImages,
        path: Path,
        shape: tuple[int, int],
        precision: Precision,
        view: View | None,
        cache_dir: Path,
    ) -> None:
        if not len(images):
            raise ValueError("no images to compute features of")
        made = with_head(self.recipe.frozen.create_pooling(*self._pooled()), self.backbone)
        pooling = made.to(self.device).eval()
        if self.projection is not None:
            self.projection.to(self.device)
        dtype = _NUMPY[precision]
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        # Written, not mapped: on a full disk a write raises, but a mapped page kills the process.
        words = f"computing features ({self._words(images, precision, view)})"
        with (
            activity(words, len(images), "images") as step,
            path.open("wb") as file,
            all_cores(self.device),
            torch.inference_mode(),
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for maps in self._maps(images, np.arange(len(images)), cache_dir, view, step):
                if self.projection is not None:
                    maps = self.projection(maps)
                batch = functional.normalize(pooling(maps).float(), dim=1).cpu().numpy()
                file.write(np.ascontiguousarray(batch, dtype=dtype).data)

    def _maps(
        self,
        images: DecodedImages,
        index: np.ndarray,
        cache_dir: Path,
        view: View | None = None,
        step: Activity | None = None,
    ) -> Iterator[Tensor]:
        mean, std = self.backbone.preprocessing.mean, self.backbone.preprocessing.std
        size = self.recipe.image_size

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, size, mean, std)

        if view is None:
            batches = eval_batches(images, index, _BATCH, transform=transform, device=self.device)
        else:
            augment = Augment(view.augment, size, mean, std)
            batches = view_batches(
                images,
                index,
                _BATCH,
                random=view.views.draw(view.number, augment),
                transform=augment,
                device=self.device,
            )
        forward = self.forward_for(len(index), cache_dir).to(self.device)
        try:
            for batch in batches:
                yield forward(batch.inputs.to(memory_format=torch.channels_last))
                if step is not None:
                    step.done += len(batch)
        finally:
            # GPU memory is kept free for the trials.
            forward.cpu()

    def forward_for(self, images: int, cache_dir: Path) -> FrozenForward:
        """Returns what runs the backbone, made again where there is much more to compute.

        Args:
            images: How many images it will see.
            cache_dir: Root of the node's caches.
        """
        size, arithmetic = self.recipe.image_size, self._arithmetic
        if arithmetic == "int8":
            assert self._int8 is not None, "int8 needs `prepare`"
            self._fast = self._fast or self._int8.forward()
            return self._fast
        if self._fast is None or images > 2 * self._made_for:
            with activity(f"making the fast copy of {self.recipe.backbone}"):
                self._fast = fast_forward(
                    self.backbone,
                    (3, size, size),
                    precision=arithmetic,
                    name=f"{self.backbone.name}, {self.backbone.reads}",
                    images=images,
                    device=self.device,
                    cache_dir=cache_dir,
                )
            self._made_for = images
        return self._fast

    def _words(self, images: DecodedImages, precision: Precision, view: View | None) -> str:
        recipe = self.recipe
        weights = weights_words(recipe.weights)
        parts = [recipe.backbone, weights, f"{recipe.image_size} px", images.name]
        if recipe.pooling != "average":
            parts.append(recipe.pooling)
        if view is not None:
            parts.append(f"view {view.number}")
        if precision != "fp32":
            parts.append(precision)
        if self._arithmetic != "fp32":
            parts.append(f"computed in {self._arithmetic}")
        return ", ".join(part for part in parts if part)
