"""The metrics of a model: their names, directions and formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """Describes a number that is computed from the images of a part.

    Attributes:
        part: Part of the images; empty for a measure of the model alone.
        name: Name, such as ``accuracy``.
        direction: Which direction is better.
        is_share: Whether it lies between 0 and 1 and is written in percent; points of it may be
            traded for latency.
    """

    part: str
    name: str
    direction: Direction
    is_share: bool = False

    @property
    def key(self) -> str:
        """Returns its name in files, such as ``validation/accuracy``."""
        return f"{self.part}/{self.name}" if self.part else self.name

    @property
    def sign(self) -> float:
        """Returns 1 where larger is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    def text(self, value: float | None) -> str:
        """Formats a value for people."""
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.4g}"


_OF_IMAGES: tuple[tuple[str, Direction, bool], ...] = (
    ("accuracy", "maximize", True),
    ("balanced_accuracy", "maximize", True),
    ("top5", "maximize", True),
    ("nll", "minimize", False),
    ("ece", "minimize", False),
)
VALIDATION = "validation"

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(VALIDATION, name, direction, is_share) for name, direction, is_share in _OF_IMAGES
    )
}
LATENCY = "latency_ms"
# Metrics that can be searched together with a latency.
SHARES = tuple(key for key, metric in METRICS.items() if metric.is_share)


def metric_of(key: str) -> Metric:
    """Finds a metric by its key; for an unknown metric larger is better."""
    part, slash, name = key.rpartition("/")
    return METRICS.get(key) or Metric(part if slash else "", name, "maximize")


def of_part(part: str, record: Mapping[str, float]) -> dict[str, float]:
    """Selects the metrics of a part from a record, by name."""
    prefix = f"{part}/"
    return {key[len(prefix) :]: value for key, value in record.items() if key.startswith(prefix)}


def keyed(part: str, values: Mapping[str, float]) -> dict[str, float]:
    """Renames metrics of a part to their names in records."""
    return {f"{part}/{name}": value for name, value in values.items()}
