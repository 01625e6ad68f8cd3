"""The metrics of a model: their names, directions and formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gsfl_tune.plugins import PluginError, make, plugin, plugins

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


_OF_IMAGES: tuple[tuple[str, str, Direction, bool], ...] = (
    ("accuracy", "accuracy", "maximize", True),
    ("balanced_accuracy", "balanced", "maximize", True),
    ("top5", "top-5", "maximize", True),
    ("nll", "NLL", "minimize", False),
    ("ece", "ECE", "minimize", False),
)
_FURTHER: tuple[tuple[str, str, Direction, bool], ...] = (
    ("top3", "top-3 accuracy", "maximize", True),
    ("macro_f1", "macro F1", "maximize", True),
    ("worst_recall", "recall of the worst class", "maximize", True),
    ("auto_coverage", "answered with --threshold auto", "maximize", True),
    ("auto_accuracy", "accuracy of these answers", "maximize", True),
    ("auroc", "AUROC, one class against the rest", "maximize", True),
    ("average_precision", "average precision", "maximize", True),
    ("expected_cost", "cost of an answer", "minimize", False),
)
# What a row of a table shows of a tested model, and the heads of the columns.
METRIC_TITLES = {name: title for name, title, *_ in _OF_IMAGES}
# What a table of its own shows.
FURTHER_TITLES = {name: title for name, title, *_ in _FURTHER}
# They rank all images for every class. So they are computed after an epoch only if the search goes
# by them, and of every model at the end.
RANKED = ("auroc", "average_precision")
COST = "expected_cost"
# Means over images: their standard error follows from the number of images.
_MEANS = ("accuracy", "balanced_accuracy", "top3", "top5", "nll", COST)
VALIDATION = "validation"
# Numbers that a method of training adds to the record of an epoch; no search goes by them.
METHOD = "method"


class MetricOfPackage(ABC):
    """A metric that an installed package adds; made without arguments.

    Its name is that of its entry point. It is computed of every part that is predicted: of the
    validation images after every epoch, and of the test images at the end.

    Attributes:
        direction: Which way is better.
        is_share: Whether it lies between 0 and 1 and is written in percent.
    """

    direction: ClassVar[Direction]
    is_share: ClassVar[bool] = False

    @abstractmethod
    def of(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Computes the metric.

        Args:
            logits: (N, C) float64 class scores before the softmax. Not to be changed.
            labels: (N,) int64 true classes.

        Returns:
            A finite number that does not depend on the order of the images.
        """


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(VALIDATION, name, direction, is_share)
        for name, _, direction, is_share in (*_OF_IMAGES, *_FURTHER)
    )
}
LATENCY = "latency_ms"
# Measures of the model alone, smaller is better: they do not change while a trial trains.
MEASURED = (LATENCY, "size_mb", "macs")


def is_share(name: str) -> bool:
    """Returns whether a metric of the built-in ones is a share, which tables write in percent."""
    return METRICS[f"{VALIDATION}/{name}"].is_share


def is_mean(name: str) -> bool:
    """Returns whether a metric is a mean over images; those of packages are taken for one."""
    return name in _MEANS or f"{VALIDATION}/{name}" not in METRICS


def ranked(keys: Iterable[str]) -> frozenset[str]:
    """Selects, by name, the metrics that are computed only where they are asked for.

    Args:
        keys: Keys of metrics, such as ``validation/auroc``.
    """
    return frozenset(name for key in keys if (name := key.rpartition("/")[2]) in RANKED)


# Metrics that can be searched together with a latency.
SHARES = tuple(key for key, metric in METRICS.items() if metric.is_share)


def metric_of(key: str) -> Metric:
    """Finds a metric by its key; for a number that is none of the images, larger is better.

    Raises:
        PluginError: If it is a metric of the validation images that no installed package adds, or
            that cannot be loaded: which way is better is then unknown.
    """
    part, slash, name = key.rpartition("/")
    if key in METRICS:
        return METRICS[key]
    if key in MEASURED:
        return Metric("", key, "minimize")
    if part == VALIDATION:
        kind = plugin("metric", name).load_class(MetricOfPackage)
        return Metric(part, name, kind.direction, kind.is_share)
    return Metric(part if slash else "", name, "maximize")


def metric_problem(name: str) -> str | None:
    """Returns what is wrong with a metric of a package, or None."""
    try:
        made = make("metric", name, MetricOfPackage, made="without arguments")
    except PluginError as error:
        return str(error)
    if getattr(made, "direction", None) not in ("maximize", "minimize"):
        return f"{plugins('metric')[name]}: direction must be maximize or minimize"
    return None


def of_part(part: str, record: Mapping[str, float]) -> dict[str, float]:
    """Selects the metrics of a part from a record, by name."""
    prefix = f"{part}/"
    return {key[len(prefix) :]: value for key, value in record.items() if key.startswith(prefix)}


def keyed(part: str, values: Mapping[str, float]) -> dict[str, float]:
    """Renames metrics of a part to their names in records."""
    return {f"{part}/{name}": value for name, value in values.items()}
