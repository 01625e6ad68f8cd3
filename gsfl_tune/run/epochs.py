"""The epoch log of a trial: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gsfl_tune.run.atomic import write_text
from gsfl_tune.run.layout import EPOCHS_FILE, replicate_directories

# Key of a record: what a stage that trains the backbone computed in.
PRECISION = "precision"


class EpochLog:
    """Appends to and reads ``epochs.jsonl``.

    The trial that trains appends; all others read. A line that a crash cut short does not count:
    it is ignored when read and removed before the next append.

    Args:
        path: The file.
        check: Called before every write. If it raises, nothing is written. See `Ownership`.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._check = check

    def append(self, record: dict[str, Any]) -> None:
        """Adds an epoch; `record` has a key ``epoch`` counted from 1."""
        self._check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Returns all complete epochs, oldest first."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return records_of(text)

    def truncate(self, epoch: int) -> None:
        """Keeps the epochs up to `epoch`, so that a resumed trial does not write them twice."""
        self._check()
        kept = [record for record in self.read() if record["epoch"] <= epoch]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))


def records_of(text: str) -> list[dict[str, Any]]:
    """Returns the complete epochs of the text of a log, oldest first."""
    records = []
    for line in text.splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def own_seconds(record: dict[str, Any]) -> float:
    """Returns the seconds of an epoch without those of what is done once, in any epoch."""
    once = record.get("cache_seconds", 0.0) + record.get("start_seconds", 0.0)
    return float(record["seconds"] - once)


def measured_of(records: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Returns epochs and their seconds by stage, without what is done once for all trainings."""
    found: dict[str, list[float]] = {}
    for record in records:
        epochs, seconds = found.get(record["stage"], (0, 0.0))
        seconds += own_seconds(record)
        found[record["stage"]] = [epochs + 1, round(seconds, 4)]
    return found


def epochs_of_trial(directory: Path) -> list[list[dict[str, Any]]]:
    """Returns the epochs of every training of a trial: one, or one for each fold and seed."""
    return [EpochLog(each / EPOCHS_FILE).read() for each in replicate_directories(directory)]


def seconds_of_trial(directory: Path) -> float:
    """Returns the seconds that the epochs of a trial took, over all of its trainings."""
    epochs = epochs_of_trial(directory)
    return sum(float(record["seconds"]) for records in epochs for record in records)
