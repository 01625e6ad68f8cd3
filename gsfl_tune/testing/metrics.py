"""The contract of a metric of a package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gsfl_tune.experiment.metrics import MetricOfPackage
from gsfl_tune.testing._expect import Expect

_expect = Expect("the metric")
_CLASSES, _IMAGES = 12, 60


def check_metric(create: Callable[[], MetricOfPackage]) -> None:
    """Checks a metric.

    - It gives a finite number, between 0 and 1 where it says that it is a share, and changes
      neither scores nor labels.
    - The order of the images makes no difference, and neither does a constant that is added to all
      scores of an image.
    - A model that is always right is better than one that is always wrong; of few images and of one
      class alone it can be computed too.

    Args:
        create: Makes the metric.

    Raises:
        AssertionError: With what is wrong.
    """
    metric = create()
    directions = "maximize", "minimize"
    _expect(getattr(metric, "direction", None) in directions, "has no direction")
    generator = np.random.default_rng(0)
    labels = np.arange(_IMAGES) % _CLASSES
    logits = generator.normal(size=(_IMAGES, _CLASSES))
    value = _of(metric, logits, labels)
    order = generator.permutation(_IMAGES)
    again = _of(metric, logits[order], labels[order])
    _expect(bool(np.isclose(value, again, rtol=1e-9)), "depends on the order of the images")
    moved = _of(metric, logits + generator.normal(size=(_IMAGES, 1)), labels)
    _expect(
        bool(np.isclose(value, moved, rtol=1e-6)), "depends on a constant that softmax takes away"
    )
    right = 8.0 * np.eye(_CLASSES)[labels]
    wrong = -8.0 * np.eye(_CLASSES)[labels]
    sign = 1 if metric.direction == "maximize" else -1
    better = sign * (_of(metric, right, labels) - _of(metric, wrong, labels))
    _expect(better > 0, "does not prefer a model that is always right")
    _of(metric, logits[:1], labels[:1])


def _of(metric: MetricOfPackage, logits: np.ndarray, labels: np.ndarray) -> float:
    before = logits.copy(), labels.copy()
    value = metric.of(logits, labels)
    same = np.array_equal(logits, before[0]) and np.array_equal(labels, before[1])
    _expect(same, "changes scores or labels")
    number = isinstance(value, int | float | np.number)
    _expect(number and bool(np.isfinite(value)), f"gives {value!r}, allowed is a finite number")
    _expect(not metric.is_share or 0 <= value <= 1, f"gives {value!r}, which is not a share")
    return float(value)
