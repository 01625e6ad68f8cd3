"""Losses of training and validation of one trial, by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.trials import MOST_POINTS
from gsfl_tune.run import EpochLog
from gsfl_tune.run.layout import EPOCHS_FILE

_KEYS = {
    "train": "train/loss",
    "cross_entropy": "train/cross_entropy",
    "validation": "validation/nll",
    "accuracy": "validation/accuracy",
}


@dataclass(frozen=True)
class TrainingCurves:
    """Holds what a trial of the search wrote after each epoch; None where it is missing.

    Attributes:
        trial: Number of the trial.
        epochs: Epochs, from 1.
        train: Training loss with all its terms.
        cross_entropy: Its cross-entropy alone; empty where the loss has no other term.
        validation: Negative log-likelihood of the validation images.
        accuracy: Accuracy on the validation images.
        stages: First epoch and name of each stage.
    """

    trial: int
    epochs: list[int]
    train: list[float | None]
    cross_entropy: list[float | None]
    validation: list[float | None]
    accuracy: list[float | None]
    stages: list[tuple[int, str]]

    def to_json(self) -> dict[str, Any]:
        """Returns them for the script, no more points than a chart can show."""
        step = max(1, math.ceil(len(self.epochs) / MOST_POINTS))
        kept = [*range(0, len(self.epochs) - 1, step), len(self.epochs) - 1]
        thinned = {name: [values[at] for at in kept] for name, values in self._columns() if values}
        return asdict(self) | thinned

    def _columns(self) -> list[tuple[str, list[Any]]]:
        return [("epochs", self.epochs), *((name, getattr(self, name)) for name in _KEYS)]


def training_curves(files: RunFiles, trial: int | None = None) -> TrainingCurves | None:
    """Reads the curves of one trial of the search.

    Args:
        files: The run.
        trial: Number of the trial; default: the winner, or while there is none the best finished
            trial.

    Returns:
        None if there is no such trial, or no loss of an epoch of it.
    """
    number = _best(files) if trial is None else trial
    if number is None:
        return None
    records = EpochLog(files.run.trial("search", number) / EPOCHS_FILE).read()
    columns = {name: [_number(each, key) for each in records] for name, key in _KEYS.items()}
    if not any(value is not None for value in (*columns["train"], *columns["validation"])):
        return None
    if columns["cross_entropy"] == columns["train"] or not any(columns["cross_entropy"]):
        columns["cross_entropy"] = []
    epochs = [int(each["epoch"]) for each in records]
    stages: list[tuple[int, str]] = []
    for epoch, record in zip(epochs, records, strict=True):
        name = str(record.get("stage"))
        if not stages or stages[-1][1] != name:
            stages.append((epoch, name))
    return TrainingCurves(number, epochs, stages=stages, **columns)


def _best(files: RunFiles) -> int | None:
    results = files.results.results
    if results is not None:
        return results.winner.trial
    board = files.results.leaderboard(1)
    return int(board[0]["trial"]) if board else None


def _number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
