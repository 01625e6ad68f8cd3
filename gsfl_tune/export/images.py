"""The images of a run, for calibration, parity and accuracy of an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.data import Dataset, DecodedImages, prepare
from gsfl_tune.data.augment import center_crop
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.predictor import Bundle
from gsfl_tune.export.runtimes import Runtime
from gsfl_tune.training.metrics import classification_metrics

_BATCH = 32


@dataclass(frozen=True)
class RunImages:
    """Holds the decoded images of a run, split as in the run.

    Attributes:
        dataset: All of them.
        preprocessing: The preprocessing of a square.
    """

    dataset: Dataset
    preprocessing: Preprocessing

    @classmethod
    def open(
        cls, bundle: Bundle, path: str | None = None, cache_dir: Path | None = None
    ) -> RunImages:
        """Opens the images that a bundle was trained on.

        Args:
            bundle: The bundle of the run.
            path: Where the images are now; default: where they were.
            cache_dir: Root of the node's caches.

        Raises:
            UserError: If they are gone, or their test part or classes differ.
        """
        section: dict[str, Any] = dict(bundle.config["data"])
        if path is not None:
            section["path"] = path
        try:
            dataset = prepare(
                DataConfig.model_validate(section),
                side=bundle.preprocessing.side,
                cache_dir=cache_dir,
            )
        except (UserError, OSError) as error:
            raise UserError(
                f"{error}\nthe export needs the images of the run for comparison and calibration: "
                "--data PATH says where they are now"
            ) from error
        problem = _difference(bundle, dataset)
        if problem is not None:
            raise UserError(
                f"{section.get('path')}: {problem}; allowed: the images of the run, unchanged"
            )
        return cls(dataset, bundle.preprocessing)

    @property
    def validation(self) -> np.ndarray:
        """Returns the positions of the validation images in the pool."""
        return self.dataset.validation_index

    def calibration(self, count: int, *, inside: bool, batch: int = 8) -> Iterator[Tensor]:
        """Yields inputs of training images, evenly spread, in batches of one size.

        Args:
            count: Largest number of images.
            inside: Whether the model does the preprocessing itself.
            batch: Images per batch; an incomplete batch is left out.
        """
        train = self.dataset.train_index
        picked = train[np.linspace(0, len(train) - 1, min(count, len(train))).astype(np.int64)]
        batch = min(batch, len(picked))
        for start in range(0, len(picked) - batch + 1, batch):
            squares = self.dataset.pool.gather(picked[start : start + batch])
            yield self.inputs(squares, inside=inside)

    def inputs(self, squares: np.ndarray, *, inside: bool) -> Tensor:
        """Converts squares to the inputs of a model."""
        images = torch.from_numpy(squares)
        if inside:
            return images
        p = self.preprocessing
        return center_crop(images, p.image_size, p.mean, p.std)

    def examples(self, count: int) -> np.ndarray:
        """Returns squares (B, side, side, 3) uint8 of validation images from all classes."""
        # Folders are read class by class: the first images would cover few classes.
        chosen = np.linspace(0, len(self.validation) - 1, min(count, len(self.validation)))
        return self.dataset.pool.gather(self.validation[chosen.round().astype(np.int64)])

    def logits(self, runtime: Runtime, part: str) -> np.ndarray:
        """Computes the logits (N, C) of a part: ``validation`` or ``test``."""
        images, index = self._part(part)
        rows = []
        with activity(f"predicting {part} images", len(index), "images") as step:
            for start in range(0, len(index), _BATCH):
                rows.append(runtime.logits(images.gather(index[start : start + _BATCH])).numpy())
                step.done += len(rows[-1])
        return np.concatenate(rows)

    def accuracy(self, runtime: Runtime, part: str) -> float:
        """Computes the top-1 accuracy on a part."""
        return self.metrics(runtime, part)["accuracy"]

    def metrics(self, runtime: Runtime, part: str) -> dict[str, float]:
        """Computes accuracy, balanced accuracy, top-5, NLL and ECE on a part."""
        images, index = self._part(part)
        labels = np.asarray(images.labels)[index]
        return classification_metrics(self.logits(runtime, part), labels)

    def _part(self, part: str) -> tuple[DecodedImages, np.ndarray]:
        if part == "validation":
            return self.dataset.pool, self.validation
        return self.dataset.test, np.arange(len(self.dataset.test), dtype=np.int64)


def _difference(bundle: Bundle, dataset: Dataset) -> str | None:
    """Says in what images differ from those of a bundle's run; None if they are the same."""
    classes = "other classes than those of the bundle"
    seen = read_description(bundle.path).get("trained_on")
    if seen is None:  # of an earlier version
        return None if dataset.classes == bundle.classes else classes
    if dataset.trained_on(validation=True)["test"] != seen["test"]:
        return "other test images than those of the run, some of which it may have been trained on"
    # Names may have been edited in the bundle. A class that is elsewhere has another number.
    places = {name: place for place, name in enumerate(bundle.classes)}
    same = all(places.get(name, place) == place for place, name in enumerate(dataset.classes))
    if len(dataset.classes) != len(bundle.classes) or not same:
        return classes
    return None
