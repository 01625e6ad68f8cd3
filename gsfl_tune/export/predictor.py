"""A loaded bundle: predicts classes of images, with the preprocessing of validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gsfl_tune.arguments import call, instance, pixels, texts, whole
from gsfl_tune.bundles import files
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data import Dataset, DecodedImages
from gsfl_tune.data.digests import in_threads
from gsfl_tune.data.image_file import Reading
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import RANKED
from gsfl_tune.export.match_classes import match_classes
from gsfl_tune.export.neighbours import Neighbour, Neighbours, unit_parts
from gsfl_tune.export.prediction import Prediction
from gsfl_tune.export.read_images import ImageError, ImageSource, images_of, named_square
from gsfl_tune.export.runtimes import Runtime, TorchRuntime
from gsfl_tune.export.thresholds import parse_threshold
from gsfl_tune.models import Ensemble
from gsfl_tune.training.metrics import classification_metrics

if TYPE_CHECKING:
    from gsfl_tune.models import Network


@dataclass(frozen=True)
class Bundle:
    """Predicts with an exported winner. Made by `load_bundle`.

    Attributes:
        path: Its directory.
        runtime: Runs the model: PyTorch, ONNX Runtime, OpenVINO or a program of `torch.export`.
        classes: Names, in the order of the outputs.
        groups: Group of every class; empty for a plain head.
        preprocessing: The preprocessing of an image.
        config: The complete configuration of the experiment that made it.
        metrics: Its results, as in ``metrics.json``.
        export: How it was exported, empty for the bundle of a run: ``format``, ``precision``,
            ``preprocess``, ``prune``, ``parity``, ``table``.
        calibration: ``temperature``, which is already in the model, and ``rejections``, the
            thresholds chosen on validation images; empty if there is none.
        source: ``hf://OWNER/NAME@COMMIT``, if it is of the Hugging Face hub.
    """

    path: Path
    runtime: Runtime
    classes: list[str]
    groups: dict[str, int]
    preprocessing: Preprocessing
    config: dict[str, Any]
    metrics: dict[str, Any]
    export: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    source: str | None = None

    def __repr__(self) -> str:
        kind = self.export.get("format", "safetensors")
        name = self.config.get("name", "?")
        return f"Bundle({str(self.path)!r}, {name!r}, {len(self.classes)} classes, {kind})"

    @property
    def network(self) -> Network:
        """Returns the PyTorch module, in eval mode, without gradients.

        Raises:
            BundleError: If the bundle's format has no network, or the bundle has several.
        """
        if isinstance(self.runtime, TorchRuntime):
            network = self.runtime.network
            if not isinstance(network, Ensemble):
                return network
            raise files.BundleError(
                f"{self.path}: an ensemble of {len(network.networks)} network(s)"
                f"{' that sees several views' if network.flip or network.crops else ''}, where one "
                "plain network "
                "is needed; use the run's own bundle (RUN/best)"
            )
        raise files.BundleError(
            f"{self.path}: exported as {self.export['format']}, which holds no PyTorch network; "
            "use the run's own bundle (RUN/best), or export with --format safetensors"
        )

    @property
    def networks(self) -> list[Network]:
        """Returns the modules whose probabilities are averaged; empty if the format has none."""
        if not isinstance(self.runtime, TorchRuntime):
            return []
        network = self.runtime.network
        return network.networks if isinstance(network, Ensemble) else [network]

    @property
    def device(self) -> torch.device:
        """Returns the device of the model."""
        return self.runtime.device

    @property
    def has_shared(self) -> bool:
        """Returns whether it was exported with the shared branch."""
        return (self.path / files.SHARED).is_file()

    def shared_state(self) -> dict[str, torch.Tensor]:
        """Reads the tensors of shared encoder, decoder and class centres.

        Raises:
            BundleError: If the bundle was exported without them.
        """
        if not self.has_shared:
            raise files.BundleError(
                f"{self.path}: exported without the shared branch; export it again with "
                "`gsfl-tune export RUN OUT --with-shared`"
            )
        digests = files.read_json_file(self.path / files.CONFIG)["sha256"]
        return files.read_tensors(self.path / files.SHARED, digests.get(files.SHARED))

    @property
    def has_neighbours(self) -> bool:
        """Returns whether it was exported with features and thumbnails of training images."""
        return (self.path / files.NEIGHBOURS).is_file()

    @functools.cached_property
    def training_images(self) -> Neighbours:
        """Reads the training images in the bundle.

        Raises:
            BundleError: If it was exported without them, or they are damaged.
        """
        if not self.has_neighbours:
            raise files.BundleError(
                f"{self.path}: exported without training images; export it again with "
                "`gsfl-tune export RUN OUT --with-neighbours`"
            )
        digests = files.read_json_file(self.path / files.CONFIG)["sha256"]
        tensors = files.read_tensors(
            self.path / files.NEIGHBOURS, digests.get(files.NEIGHBOURS, "")
        )
        return Neighbours(tensors, self.classes)

    def neighbours(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        count: int = 6,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> list[list[Neighbour]]:
        """Finds the training images that are nearest to each image, nearest first.

        Args:
            images: As for `predict`.
            count: Training images per image.
            on_error: As for `predict`.

        Raises:
            BundleError: If it was exported without training images, or has no single network.
            ImageError: For an image that cannot be read, without `on_error`.
            TypeError, ValueError: If an argument is none of these; `count` is a whole number from 1
                on.
        """
        count = whole(count, "Bundle.neighbours: count")
        if on_error is not None:
            call(on_error, "Bundle.neighbours: on_error", "a function that takes an ImageError")
        stored, network = self.training_images, self.network
        found: list[list[Neighbour]] = []
        for _, squares in self.squares(images, on_error=on_error):
            found += stored.nearest(unit_parts(network, squares, self.preprocessing), count)
        return found

    def predict(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        top: int = 5,
        batch_size: int = 32,
        on_error: Callable[[ImageError], None] | None = None,
        threshold: float | str | None = None,
    ) -> list[Prediction]:
        """Predicts the most probable classes of each image.

        Args:
            images: Paths, file contents, Pillow images, or (H, W, 3) or (H, W) uint8 arrays; or
                one of these, which gives a list with one prediction.
            top: Classes per prediction; all if there are fewer.
            batch_size: Images per forward pass; only these are held in memory.
            on_error: Called with the error of an image that cannot be read, which is then left
                out; without it the first such image ends the prediction.
            threshold: Probability below which an image is ``unknown``; ``"auto"`` is the
                bundle's own, ``"auto:0.8"`` the one that rejects that share of errors.

        Raises:
            ImageError: For an image that cannot be read, without `on_error`.
            UserError: If there is no such threshold.
            TypeError, ValueError: If an argument is none of these; `top` and `batch_size` are
                whole numbers from 1 on.
        """
        return list(
            self.stream(
                images, top=top, batch_size=batch_size, on_error=on_error, threshold=threshold
            )
        )

    def stream(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        top: int = 5,
        batch_size: int = 32,
        on_error: Callable[[ImageError], None] | None = None,
        threshold: float | str | None = None,
    ) -> Iterator[Prediction]:
        """Yields the results of `predict` one by one, with only some images in memory.

        Images are read and decoded ahead, in as many threads as there are cores.
        """
        top, batch_size = whole(top, "predict: top"), whole(batch_size, "predict: batch_size")
        if on_error is not None:
            call(on_error, "predict: on_error", "a function that takes an ImageError")
        least = None if threshold is None else self.threshold(threshold)
        return self._predictions(images_of(images), top, batch_size, on_error, least)

    def _predictions(
        self,
        images: Iterable[ImageSource],
        top: int,
        batch_size: int,
        on_error: Callable[[ImageError], None] | None,
        least: float | None,
    ) -> Iterator[Prediction]:
        for names, squares in self.squares(images, batch_size=batch_size, on_error=on_error):
            yield from self.predict_squares(names, squares, top=top, least=least)

    def predict_squares(
        self, names: Sequence[str], squares: np.ndarray, *, top: int, least: float | None = None
    ) -> list[Prediction]:
        """Predicts images that were read already, in one batch.

        Args:
            names: B names.
            squares: (B, side, side, 3) uint8, as `squares` yields them.
            top: Classes per prediction; all if there are fewer.
            least: Probability below which an image is ``unknown``.

        Raises:
            TypeError, ValueError: If an argument is none of these.
        """
        top = whole(top, "Bundle.predict_squares: top")
        if least is not None:
            instance(float, least, "Bundle.predict_squares: least", "a probability, or None")
        shape = (len(names), *[self.preprocessing.side] * 2, 3)
        pixels(squares, "Bundle.predict_squares: squares", shape, "one for each name")
        probabilities = self.runtime.logits(squares).double().softmax(dim=1)
        best = probabilities.topk(min(top, len(self.classes)), dim=1)
        rows = zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
        found = []
        for name, row, values in rows:
            below = None if least is None else values[0] < least
            found.append(Prediction(name, [self.classes[n] for n in row], values, below))
        return found

    def threshold(self, asked: float | str, where: str = "threshold") -> float:
        """Returns the probability below which the answer is ``unknown``.

        Args:
            asked: ``auto``, ``auto:SHARE`` or a probability.
            where: Name of the option, for the error.

        Raises:
            UserError: If it is none of these, or the bundle has no such threshold.
        """
        return parse_threshold(str(asked), self.calibration, where)

    def logits(self, images: DecodedImages, *, batch_size: int = 64) -> np.ndarray:
        """Computes the logits (N, C) float32 of decoded images.

        Raises:
            UserError: If they were decoded to squares of another side.
        """
        instance(DecodedImages, images, "Bundle.logits: images", "the decoded images of a Dataset")
        batch_size = whole(batch_size, "Bundle.logits: batch_size")
        if images.side != self.preprocessing.side:
            raise UserError(
                f"images decoded to {images.side} px squares, the bundle expects "
                f"{self.preprocessing.side}"
            )
        out = np.empty((len(images), len(self.classes)), dtype=np.float32)
        for start in range(0, len(images), batch_size):
            index = np.arange(start, min(start + batch_size, len(images)))
            out[index] = self.runtime.logits(images.gather(index)).numpy()
        return out

    def evaluate(
        self,
        data: Dataset | DecodedImages,
        classes: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
    ) -> dict[str, float]:
        """Scores the bundle on labelled images.

        Args:
            data: Decoded images, or a data set: then its test part is used.
            classes: Class names of the labels of decoded images; default: the bundle's classes.
                They are matched by name.
            batch_size: Images per forward pass.

        Returns:
            All metrics but the expected cost, see
            `gsfl_tune.training.metrics.classification_metrics`.

        Raises:
            UserError: If a class is unknown to the bundle, or there is no image.
        """
        instance(
            (Dataset, DecodedImages), data, "Bundle.evaluate: data", "a Dataset or decoded images"
        )
        batch_size = whole(batch_size, "Bundle.evaluate: batch_size")
        if isinstance(data, Dataset):
            images, names = data.test, data.classes
        else:
            images, names = data, self.classes if classes is None else list(classes)
        labels = self.match_classes(names, images.labels)[np.asarray(images.labels)]
        if not len(labels):
            raise UserError("no image to evaluate on")
        logits = self.logits(images, batch_size=batch_size)
        return classification_metrics(logits, labels, ranked=RANKED)

    def match_classes(self, names: Sequence[str], labels: np.ndarray | None = None) -> np.ndarray:
        """Returns the positions (K,) of the names among the bundle's classes.

        Args:
            names: K names.
            labels: (N,) labels of images, for the message.

        Raises:
            UserError: If names are unknown to the bundle; lists them and the share of images that
                could not be right.
        """
        listed = texts(names, "Bundle.match_classes: names", "a list of names of classes")
        return match_classes(self.classes, listed, labels)

    def squares(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 32,
        on_error: Callable[[ImageError], None] | None = None,
        reading: Reading | None = None,
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Reads images as the model needs them, in batches and in order.

        Args:
            images: As for `predict`.
            batch_size: Images per batch.
            on_error: As for `predict`.
            reading: How files are read; default: the bundle's.

        Yields:
            Names, and (B, side, side, 3) uint8 squares.

        Raises:
            ImageError: For an image that cannot be read, without `on_error`.
            TypeError, ValueError: If an argument is none of these.
        """
        batch_size = whole(batch_size, "Bundle.squares: batch_size")
        if on_error is not None:
            call(on_error, "Bundle.squares: on_error", "a function that takes an ImageError")
        return self._squares(images_of(images), batch_size, on_error, reading)

    def _squares(
        self,
        images: Iterable[ImageSource],
        batch_size: int,
        on_error: Callable[[ImageError], None] | None,
        reading: Reading | None,
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        names: list[str] = []
        squares: list[np.ndarray] = []
        how = self.preprocessing
        work = partial(named_square, side=how.side, fit=how.fit, reading=reading or how.reading)
        for _, (name, found) in in_threads(enumerate(enumerate(images)), work):
            if isinstance(found, ImageError):
                if on_error is None:
                    raise found
                on_error(found)
                continue
            names.append(name)
            squares.append(found)
            if len(names) == batch_size:
                yield names, np.stack(squares)
                names, squares = [], []
        if names:
            yield names, np.stack(squares)
