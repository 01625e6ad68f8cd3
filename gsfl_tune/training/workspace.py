"""The data that a node's trials share: images, pretrained backbones, features, class groups."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import Dataset, Views, cache_directory, prepare
from gsfl_tune.data.folds import Fold
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.grouping import load_taxonomy, make_groups
from gsfl_tune.models import (
    Backbone,
    BackboneError,
    Reads,
    Weights,
    WeightsError,
    create_backbone,
    licence_problem,
)
from gsfl_tune.models.frozen import has_bf16_units
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.caches.features import (
    CODE_VERSION,
    FeatureExtractor,
    FeatureRecipe,
    View,
    digest,
)
from gsfl_tune.training.caches.int8 import int8_problem
from gsfl_tune.training.caches.open_files import allow_open_files
from gsfl_tune.training.caches.teacher import Teacher, seen_by, seen_complaint
from gsfl_tune.training.pretrain import pretrained_backbone, pretraining_settings

_FROM_FEATURES = ("kmeans", "spectral", "agglomerative")


class Workspace:
    """Holds the data of a run on this node, and all results that are computed from it only once.

    Args:
        dataset: Decoded images with their split.
        cache_dir: Root of the node's caches.
        device: Device for features; default: a GPU if there is one.

    Attributes:
        fold: The fold of the images that is held out; None for the validation part of the split.
    """

    fold: Fold | None = None

    def __init__(
        self, dataset: Dataset, cache_dir: Path | None = None, device: torch.device | None = None
    ) -> None:
        self.dataset = dataset
        # Absolute: Ray runs every trial in a working directory of its own.
        self.cache_dir = (cache_dir or cache_directory()).absolute()
        self.device = device or resolve_device("auto")
        self._backbones: dict[tuple[str, Weights, Reads, str], Backbone] = {}
        self._extractors: dict[FeatureRecipe, FeatureExtractor] = {}
        # For one recipe only; mapping files again for another one is fast.
        self._recipe: tuple[object, ...] = ()
        self._tensors: dict[tuple[str, View | None], torch.Tensor] = {}
        self._tables: dict[tuple[str, str, int], FeatureTable] = {}
        self._teachers: dict[tuple[str, str], Teacher] = {}

    @classmethod
    def open(
        cls,
        config: DataConfig,
        *,
        side: int | None = None,
        cache_dir: Path | None = None,
        device: torch.device | None = None,
    ) -> Workspace:
        """Prepares the data, or takes it from the cache, and opens it.

        Args:
            config: The data section.
            side: Side of the decoded squares; default 1.15 times the image size.
            cache_dir: Root of the node's caches.
            device: Device for features.

        Raises:
            UserError: When the data cannot be used.
        """
        cache_dir = cache_dir or cache_directory()
        return cls(prepare(config, side=side, cache_dir=cache_dir), cache_dir, device)

    def backbone(self, config: Config) -> Backbone:
        """Returns the pretrained backbone, which is shared: do not train it, see `new_backbone`.

        With ``training.pretrain`` its weights are learned without labels first, once a node.

        Raises:
            UserError: If its weights are not available or cannot be learned, or have a licence
                that is not allowed.
        """
        key = self._backbone_key(config)
        name, weights, reads, learned = key
        if key not in self._backbones:
            allowed = config.model.licenses
            if allowed is not None and (problem := licence_problem(name, weights, allowed)):
                raise UserError(f"model.backbone: {problem}")
            try:
                with activity(f"loading {name}"):
                    if learned:
                        where = (self.cache_dir, resolve_device(config.training.device))
                        backbone = pretrained_backbone(config, self.dataset, *where, reads)
                    else:
                        backbone = create_backbone(name, weights, reads=reads)
            except WeightsError as error:
                raise UserError(f"model.weights: {error}") from error
            except BackboneError as error:
                raise UserError(f"model.backbone: {error}") from error
            # One is enough: trials of a process mostly share it, and a large one takes gigabytes.
            self._backbones = {key: backbone}
            self._extractors = {}
        return self._backbones[key]

    def has_backbone(self, config: Config) -> bool:
        """Returns whether `backbone` would return what is loaded already."""
        return self._backbone_key(config) in self._backbones

    def _backbone_key(self, config: Config) -> tuple[str, Weights, Reads, str]:
        name, weights = config.model.extractor, config.model.extractor_weights
        return (name, weights, FeatureRecipe.of(config).reads, _pretraining(config))

    def new_backbone(self, config: Config) -> Backbone:
        """Returns a copy of the pretrained backbone that a trial may change."""
        return copy.deepcopy(self.backbone(config))

    def extractor(self, config: Config) -> FeatureExtractor:
        """Returns the frozen feature extractor of a configuration, with a fitted projection."""
        recipe = FeatureRecipe.of(config)
        if recipe.arithmetic == "bf16" and self.device.type == "cpu" and not has_bf16_units():
            raise UserError(
                "model.feature_precision: found bf16, but this CPU does not multiply bf16 numbers "
                "(it has neither AMX nor AVX512-BF16); allowed: auto, fp32"
            )
        if recipe.arithmetic == "int8" and (problem := int8_problem(self.device)):
            raise UserError(f"model.feature_precision: {problem}")
        backbone = self.backbone(config)
        if recipe not in self._extractors:
            extractor = FeatureExtractor(recipe, backbone, self.device)
            extractor.prepare(self.dataset.pool, self.dataset.train_index, self.cache_dir)
            self._extractors[recipe] = extractor
        return self._extractors[recipe]

    def feature_dim(self, config: Config) -> int:
        """Returns D, the size of a configuration's feature."""
        return self.extractor(config).pooling().dim

    def features(self, config: Config, part: str = "pool") -> torch.Tensor:
        """Returns unit features of the frozen pretrained backbone for all images of a part.

        Args:
            config: Decides backbone, weights, image size and pooling.
            part: ``pool`` (training and validation) or ``test``.

        Returns:
            (N, D) tensor on the CPU that shares memory with the node's cache, float32 or, with
            ``training.cache_precision: fp16``, float16.
        """
        return self._mapped(config, part, None)

    def exact_features(self, config: Config, part: str, index: np.ndarray) -> torch.Tensor:
        """Returns `features` of images (N,) as a bundle computes them: in fp32, and stored so."""
        if self.is_exact(config):
            return self.features(config, part)[torch.from_numpy(index)]
        full, test = self.extractor(config).in_full(), self.dataset.test
        if part == "test":  # all of them, so that whoever asks reads the same file
            return full.features(test, self.cache_dir)[torch.from_numpy(index)]
        return full.features(self.dataset.pool.at(index), self.cache_dir)

    def is_exact(self, config: Config) -> bool:
        """Returns whether `features` are those of a bundle."""
        extractor = self.extractor(config)
        return config.training.cache_precision == "fp32" and extractor.in_full() is extractor

    def views(self, config: Config) -> Views | None:
        """Returns the fixed views that a configuration trains on; None without views."""
        data = config.data
        if not data.views:
            return None
        return Views(data.views, len(self.dataset.pool), data.split.seed)

    def view_features(self, config: Config) -> list[torch.Tensor]:
        """Returns unit features of every fixed view of the pool, each as from `features`."""
        views = self.views(config)
        if views is None:
            return []
        augment = config.data.augment
        numbers = range(views.count)
        return [self._mapped(config, "pool", View(views, i, augment)) for i in numbers]

    def table(
        self, config: Config, name: Literal["features", "views"], device: torch.device
    ) -> FeatureTable:
        """Returns features of the pool for training, kept on a GPU for this process' next trial.

        Only those of the latest recipe are kept.

        Args:
            config: As for `features`.
            name: ``features``, or ``views`` for all of `view_features`.
            device: Device of the trial.
        """
        tensors = [self.features(config)] if name == "features" else self.view_features(config)
        key = (name, str(device), len(tensors))
        if key not in self._tables:
            self._tables[key] = FeatureTable(tensors, device)
        return self._tables[key]

    def free_device(self) -> None:
        """Releases the GPU memory of `table`; tensors in use stay until trials release them."""
        self._tables.clear()

    @property
    def device_bytes(self) -> int:
        """Returns the bytes of GPU memory that features take between trials."""
        return sum(table.device_bytes for table in self._tables.values())

    def _mapped(self, config: Config, part: str, view: View | None) -> torch.Tensor:
        precision = config.training.cache_precision
        augment = config.data.augment if config.data.views else None
        recipe = (FeatureRecipe.of(config), precision, augment, _pretraining(config))
        if recipe != self._recipe:
            self._recipe = recipe
            self._tensors.clear()
            self._tables.clear()
        if (part, view) not in self._tensors:
            if view is not None:
                allow_open_files(2 * view.views.count)
            images = self.dataset.pool if part == "pool" else self.dataset.test
            self._tensors[part, view] = self.extractor(config).features(
                images, self.cache_dir, precision=precision, view=view
            )
        return self._tensors[part, view]

    def teacher(self, config: Config) -> Teacher | None:
        """Returns the shared teacher of a configuration; None without distillation.

        Raises:
            UserError: When it cannot be had, has other classes, or has seen the test images.
        """
        path = config.training.teacher
        if path is None or not config.loss.distill.weight:
            return None
        key = (path, config.data.fit)
        if key not in self._teachers:
            with activity(f"loading the teacher {path}"):
                teacher = Teacher(Path(path), self.dataset.classes, config.data.fit)
            seen_by(teacher, self.dataset)
            self._teachers = {key: teacher}
        return self._teachers[key]

    def teacher_notices(self, config: Config, *, begun: bool = False) -> list[str]:
        """Says what people must know of a configuration's teacher before anything is trained.

        Args:
            config: The configuration.
            begun: Whether trainings have learned from this teacher already, and go on.

        Raises:
            UserError: As `teacher`, and, where none have, when it has seen images that validate
                students, which `search.folds` makes of all.
        """
        teacher = self.teacher(config)
        if teacher is None:
            return []
        complaint = seen_complaint(teacher, self.dataset, folds=config.search.folds is not None)
        if complaint and not begun:
            raise UserError(complaint)
        told = [f"{complaint}. What began with it goes on"] if complaint else []
        return told + seen_by(teacher, self.dataset)

    def teacher_tables(self, config: Config, *, views: bool) -> list[torch.Tensor]:
        """Returns the teacher's scores of the pool, (N, C) float32 a fixed view, or of the centres.

        Args:
            config: Of a training with a teacher.
            views: Whether of the fixed views.
        """
        teacher, fixed = self.teacher(config), self.views(config)
        assert teacher is not None
        pool = self.dataset.pool
        if not views or fixed is None:
            return [teacher.table(pool, self.cache_dir, self.device)]
        allow_open_files(2 * fixed.count)
        return [
            teacher.table(
                pool, self.cache_dir, self.device, View(fixed, number, config.data.augment)
            )
            for number in range(fixed.count)
        ]

    def groups(self, config: Config) -> np.ndarray:
        """Returns the group of each class, (C,) int64.

        Computed once per backbone, weights, method, count and data seed from the frozen
        features of the training images, validation excluded.

        Raises:
            UserError: For a taxonomy that does not fit the classes, or more groups than classes.
        """
        settings = config.model.groups
        taxonomy = self._taxonomy(config)
        dataset = self.dataset
        extractor = self.extractor(config)
        key = digest(
            "groups", CODE_VERSION, extractor.key(dataset.pool, config.training.cache_precision),
            dataset.train_index.tobytes(),
            settings.method, settings.count, taxonomy, config.data.split.seed,
        )  # fmt: skip

        def build(path: Path) -> None:
            train = dataset.train_index
            features = np.empty((len(train), 0), dtype=np.float32)
            if settings.method in _FROM_FEATURES:
                features = self.features(config)[torch.from_numpy(train)].float().numpy()
            try:
                with activity(f"grouping {dataset.class_count} classes"):
                    groups = make_groups(
                        settings.method,
                        settings.count,
                        features,
                        dataset.pool.labels[train],
                        dataset.class_count,
                        seed=config.data.split.seed,
                        taxonomy=taxonomy,
                    )
            except ValueError as error:
                raise UserError(f"model.groups: {error}") from error
            with path.open("wb") as file:
                np.save(file, groups)

        what = f"{settings.method}, {settings.count}, {config.model.extractor}, {dataset.name}"
        with acquire(self.cache_dir / "groups" / f"{key}.npy", build, what=what) as path:
            return np.load(path)

    def _taxonomy(self, config: Config) -> list[str] | None:
        settings = config.model.groups
        if settings.method != "taxonomy":
            return None
        if settings.taxonomy is None:
            if self.dataset.known_groups is None:
                raise UserError(
                    "model.groups.taxonomy: found nothing, "
                    "allowed: a CSV file with columns class, group"
                )
            return self.dataset.known_groups
        try:
            return load_taxonomy(Path(settings.taxonomy), self.dataset.classes)
        except ValueError as error:
            raise UserError(f"model.groups.taxonomy: {error}") from error


def _pretraining(config: Config) -> str:
    """Returns a name for what the backbone learned without labels; empty for nothing."""
    if not config.training.pretrain:
        return ""
    # The precision of a pretraining follows from both.
    training = config.training
    return digest(pretraining_settings(config), training.precision, training.device)


def resolve_device(name: str) -> torch.device:
    """Returns the torch device for ``training.device``.

    Raises:
        UserError: If a GPU is asked for and there is none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("training.device: found cuda, but torch sees no GPU; allowed: auto, cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "training.device: found mps, but torch sees no GPU of Apple; allowed: auto, cpu"
        )
    try:
        return torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device: found {name!r}, allowed auto, cpu, cuda, mps, or one GPU such as cuda:0"
        ) from None
