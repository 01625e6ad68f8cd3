"""Predictions of a model for a set of images, in memory and on disk."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsfl_tune.experiment.metrics import RANKED
from gsfl_tune.run import write_bytes
from gsfl_tune.training.metrics import classification_metrics


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (N,) whether the largest of each row's logits (N, C) is that of its true class."""
    return np.asarray(logits.argmax(axis=1) == labels)


@dataclass(frozen=True)
class Predictions:
    """Holds the predictions of a model for a set of images.

    Attributes:
        logits: (N, C) float32.
        labels: (N,) int64 true classes.
        paths: N names of the images.
    """

    logits: np.ndarray
    labels: np.ndarray
    paths: list[str]

    @property
    def correct(self) -> np.ndarray:
        """Returns (N,) whether the largest logit is that of the true class."""
        return right(self.logits, self.labels)

    def metrics(
        self,
        *,
        ranked: Collection[str] = RANKED,
        costs: np.ndarray | None = None,
        own_threshold: bool = False,
    ) -> dict[str, float]:
        """Returns all metrics, see `classification_metrics`."""
        return classification_metrics(
            self.logits, self.labels, ranked=ranked, costs=costs, own_threshold=own_threshold
        )


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Writes ``logits`` (N, C) float32, ``labels`` (N,) int64 and ``paths`` (N,), atomically."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        logits=predictions.logits.astype(np.float32),
        labels=predictions.labels.astype(np.int64),
        paths=np.asarray(predictions.paths, dtype=np.str_),
    )
    write_bytes(path, buffer.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Reads predictions that `save_predictions` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Predictions(file["logits"], file["labels"], [str(name) for name in file["paths"]])
