"""The retrained networks of a run, and their features and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.bundles.files import CONFIG, MODEL, SHARED
from gsfl_tune.data import center_crop, eval_batches
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, GsflHead, Network, scales_logits
from gsfl_tune.run import read_json
from gsfl_tune.run.layout import CHECKPOINT_FILE, TEST_FILE
from gsfl_tune.training import (
    CheckpointError,
    Predictions,
    Timeline,
    Training,
    Workspace,
    load_predictions,
)
from gsfl_tune.training.caches.engines import fast_backbone, has_fast_form
from gsfl_tune.training.caches.features import all_cores

Part = Literal["pool", "test"]
Decode = Callable[[NDArray[np.floating]], NDArray[np.floating]]

_HEAD_BATCH = 512
_IMAGE_BATCH = 32


class ModelGone(UserError):
    """Signals a retrained model that is no longer on disk."""


@dataclass(frozen=True)
class Retrained:
    """Holds a configuration that was retrained with several seeds, and paths of its models.

    Attributes:
        config: The configuration.
        directories: By seed, the folder of ``checkpoint.pt`` and ``test.npz``.
        bundle: ``RUN/best`` and ``RUN/best-training``, which also hold the first seed's model.
    """

    config: Config
    directories: dict[int, Path]
    bundle: tuple[Path, Path] | None = None

    def predictions(self) -> list[Predictions]:
        """Reads the predictions of the test images that are on disk, one per seed."""
        files = [directory / TEST_FILE for directory in self.directories.values()]
        return [load_predictions(file) for file in files if file.is_file()]

    def missing(self) -> list[Path]:
        """Returns the directories of models that are neither there nor in the bundle."""
        gone = [
            directory
            for directory in self.directories.values()
            if not (directory / CHECKPOINT_FILE).is_file()
        ]
        first = next(iter(self.directories.values()))
        if first in gone and self.bundle is not None and (self.bundle[0] / MODEL).is_file():
            gone.remove(first)
        return gone

    def models(self, workspace: Workspace, most: int) -> Iterator[TrainedModel]:
        """Yields the models that can be loaded, in the order of the seeds.

        Args:
            workspace: Data and caches.
            most: Largest number of seeds.

        Raises:
            ModelGone: If there is none, with the reasons.
        """
        found = 0
        troubles: list[str] = []
        for place, (seed, directory) in enumerate(self.directories.items()):
            if found == most:
                return
            try:
                model = self._model(workspace, seed, directory, first=place == 0)
            except ModelGone as error:
                troubles.append(str(error))
                continue
            found += 1
            yield model
        if not found:
            raise ModelGone("\n".join(troubles))

    def _model(
        self, workspace: Workspace, seed: int, directory: Path, *, first: bool
    ) -> TrainedModel:
        config = self.config
        finetuned = Timeline.of(config).trains_backbone
        training = Training(config, workspace, directory, seed=seed, fit="train+validation")
        path = training.checkpoint_path
        trouble = f"{path}: is gone" if not path.is_file() else f"{path}: from another training"
        try:
            if training.look() and training.finished:
                network = training.trained_network()
                return TrainedModel(workspace, config, network, finetuned, training)
        except CheckpointError as error:
            trouble = str(error)
        if not first or self.bundle is None:
            raise ModelGone(trouble)
        network = training.network(workspace.new_backbone(config)).cpu()
        load_exported(network, *self.bundle)
        return TrainedModel(workspace, config, network.requires_grad_(False), finetuned)


def load_exported(network: Network, best: Path, best_training: Path) -> None:
    """Loads the weights of ``RUN/best`` and ``RUN/best-training`` into a network.

    Raises:
        ModelGone: If a file is missing, damaged, or does not fit.
    """
    files = [best / MODEL]
    if isinstance(network.head, GsflHead):
        files.append(best_training / SHARED)
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelGone(f"{file}: cannot be read ({error})") from error
    kept = {name: value for name, value in state.items() if not name.startswith("centers.")}
    temperature = _temperature(best)
    for name in filter(scales_logits, kept):
        # The bundle's logits are calibrated, but the evidence uses uncalibrated ones.
        kept[name] = kept[name] * temperature
    try:
        network.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise ModelGone(f"{files[0]}: not the model of this run's winner ({error})") from error


def _temperature(best: Path) -> float:
    """Returns the temperature by which the classifier of a bundle was divided."""
    try:
        return float(read_json(best / CONFIG).get("calibration", {}).get("temperature", 1.0))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelGone(f"{best / 'config.json'}: cannot be read ({error})") from error


@dataclass(frozen=True)
class Latents:
    """Holds a network's features and parts of images.

    Attributes:
        features: (N, D) unit features f.
        discriminative: (N, H) parts d.
        shared: (N, H) parts s; None for a plain head.
    """

    features: NDArray[np.float32]
    discriminative: NDArray[np.float32]
    shared: NDArray[np.float32] | None


class TrainedModel:
    """Runs one seed's retrained network, on the device of a workspace.

    Args:
        workspace: Data and caches.
        config: The network's configuration.
        network: The network, in eval mode.
        finetuned: Whether its backbone was trained; if not, cached features are its own.
        training: Its training, if the checkpoint exists: it has the output of the frozen blocks.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: Config,
        network: Network,
        finetuned: bool,
        training: Training | None = None,
    ) -> None:
        self.config = config
        self.network = network.to(workspace.device).eval()
        self.finetuned = finetuned
        self._preprocessing = network.backbone.preprocessing
        self._workspace = workspace
        self._device = workspace.device
        self._training = training

    def features(self, part: Part, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns unit features (N, D) of the images at positions of a part."""
        return self._read(part, index)[:, : self.network.head.feature_dim]

    def _read(self, part: Part, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns what the head reads, see `gsfl_tune.models.PlainHead.divided`."""
        if not self.finetuned:
            # The head was trained on what is cached of the pool; its test was the bundle's.
            if part == "test":
                cached = self._workspace.exact_features(self.config, part, index)
            else:
                cached = self._workspace.features(self.config, part)[torch.from_numpy(index)]
            return np.asarray(cached.float().numpy())
        if self._training is not None:
            with activity("running the retrained network"), all_cores(self._device):
                trained = self._training.trained_features(part, index)
            assert trained is not None, "a finetuned model was trained by its finetune stage"
            return np.asarray(trained.numpy())
        rows: list[Tensor] = []
        with (
            self._quick(len(index)),
            activity("running the retrained network", len(index), "images") as step,
            torch.inference_mode(),
            all_cores(self._device),
        ):
            for batch in self.images(part, index):
                rows.append(self.network.features(batch).cpu())
                step.done += len(batch)
        return np.asarray(torch.cat(rows).numpy())

    def latents(self, part: Part, index: NDArray[np.int64]) -> Latents:
        """Returns features and both parts of the images at positions of a part."""
        features = self.features(part, index)
        head = self.network.head
        discriminative, shared = [], []
        with torch.inference_mode(), all_cores(self._device):
            for batch in torch.from_numpy(features).split(_HEAD_BATCH):
                scaled = head.feature_scale * batch.to(self._device)
                discriminative.append(head.discriminative(scaled).cpu())
                if isinstance(head, GsflHead):
                    shared.append(head.shared(scaled).cpu())
        return Latents(
            features,
            np.asarray(torch.cat(discriminative).numpy()),
            np.asarray(torch.cat(shared).numpy()) if shared else None,
        )

    @property
    def decode(self) -> Decode:
        """Returns a function from sums s + d (M, H) to features (M, D); it keeps only the head.

        Raises:
            ValueError: For a plain head, which has no decoder.
        """
        head, device = self.network.head, self._device
        if not isinstance(head, GsflHead):
            raise ValueError("a plain head has no decoder")

        def decode(sums: NDArray[np.floating]) -> NDArray[np.floating]:
            table = torch.from_numpy(np.asarray(sums, dtype=np.float32))
            with torch.inference_mode(), all_cores(device):
                rows = [head.decoder(each.to(device)).cpu() for each in table.split(_HEAD_BATCH)]
            return np.asarray((torch.cat(rows) / head.feature_scale).numpy())

        return decode

    def predictions(self) -> Predictions:
        """Returns the predictions of all test images."""
        images = self._workspace.dataset.test
        features = self._read("test", np.arange(len(images), dtype=np.int64))
        rows = []
        with torch.inference_mode(), all_cores(self._device):
            for batch in torch.from_numpy(features).split(_HEAD_BATCH):
                rows.append(self.network.head.infer(batch.to(self._device)).cpu())
        logits = np.asarray(torch.cat(rows).numpy())
        return Predictions(logits, np.asarray(images.labels), list(images.paths))

    def mirrored_logits(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns logits (N, C) of the mirrored test images at positions."""
        rows: list[Tensor] = []
        with (
            self._quick(len(index)),
            activity("running the retrained network on mirrored images", len(index), "images") as s,
            torch.inference_mode(),
            all_cores(self._device),
        ):
            for batch in self.images("test", index):
                rows.append(self.network.infer(batch.flip(3)).float().cpu())
                s.done += len(batch)
        return np.asarray(torch.cat(rows).numpy())

    def part_boxes(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the boxes (N, P, 4) of parts that are found in the test images at positions.

        Raises:
            ValueError: If the network finds none.
        """
        detector = self.network.parts
        if detector is None:
            raise ValueError("the network finds no parts")
        with (
            detector.noting() as noted,
            self._quick(len(index)),
            activity("finding parts of test images", len(index), "images") as s,
            torch.inference_mode(),
            all_cores(self._device),
        ):
            for batch in self.images("test", index):
                self.network.features(batch)
                s.done += len(batch)
        return np.asarray(torch.cat([each.boxes.float().cpu() for each in noted]).numpy())

    @contextmanager
    def _quick(self, count: int) -> Iterator[None]:
        """Runs the backbone of many images in its fast form; outputs differ by rounding."""
        network, plain = self.network, self.network.backbone
        if not has_fast_form(network, count, self._device):
            yield
            return
        with all_cores(self._device):
            form = fast_backbone(
                plain,
                self.config.eval_image_size,
                precision="fp32",
                images=count,
                device=self._device,
                cache_dir=self._workspace.cache_dir,
            )
        network.backbone = cast(Backbone, form)
        try:
            yield
        finally:
            network.backbone = plain

    def images(self, part: Part, index: NDArray[np.int64]) -> Iterator[Tensor]:
        """Yields batches (B, 3, side, side) as the network sees them, on its device."""
        dataset = self._workspace.dataset
        size = self.config.eval_image_size
        mean, std = self._preprocessing

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, size, mean, std)

        images = dataset.pool if part == "pool" else dataset.test
        batches = eval_batches(
            images, index, _IMAGE_BATCH, transform=transform, device=self._device
        )
        for batch in batches:
            yield batch.inputs.contiguous(memory_format=torch.channels_last)


def spread_index(labels: ArrayLike, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Chooses positions of at most `most` images, about equally many per class; ascending.

    Args:
        labels: (N,) classes.
        most: Largest number of positions.
        seed: Seed of the choice inside a class.
    """
    classes = np.asarray(labels, dtype=np.int64)
    if len(classes) <= most:
        return np.arange(len(classes), dtype=np.int64)
    draws = np.random.default_rng(seed).random(len(classes))
    order = np.lexsort((draws, classes))
    starts = np.searchsorted(classes[order], classes[order])
    rank = np.empty(len(classes), dtype=np.int64)
    rank[order] = np.arange(len(classes)) - starts
    # Takes the first of every class, then the second, ...; the draws break ties.
    return np.sort(np.lexsort((draws, rank))[:most])
