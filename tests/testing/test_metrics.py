"""The contract finds what breaks it, and the metrics that are built in keep it."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.experiment.metrics import METRICS, RANKED, MetricOfPackage
from gsfl_tune.testing import check_metric
from gsfl_tune.training.metrics import classification_metrics


class BuiltIn(MetricOfPackage):
    """One of ours, as a package would have it."""

    def __init__(self, name):
        self.name = name
        known = METRICS[f"validation/{name}"]
        self.direction, self.is_share = known.direction, known.is_share

    def of(self, logits, labels):
        everything = {"ranked": RANKED, "costs": 1 - np.eye(logits.shape[1]), "own_threshold": True}
        found = classification_metrics(logits, labels, **everything)
        # Of one class there is no area under the curve, and ours is left out.
        return found.get(self.name, 0.5) if self.name == "auroc" else found[self.name]


@pytest.mark.parametrize("name", [metric.name for metric in METRICS.values()])
def test_the_metrics_that_are_built_in_keep_the_contract(name):
    check_metric(lambda: BuiltIn(name))


class Accuracy(MetricOfPackage):
    """A sound metric to break."""

    direction = "maximize"
    is_share = True

    def of(self, logits, labels):
        return float((logits.argmax(1) == labels).mean())


class Backwards(Accuracy):
    direction = "minimize"


class Nowhere(Accuracy):
    direction = "up"


class Percent(Accuracy):
    def of(self, logits, labels):
        return 100 * super().of(logits, labels)


class First(Accuracy):
    def of(self, logits, labels):
        return super().of(logits[:20], labels[:20])


class Raw(Accuracy):
    is_share = False

    def of(self, logits, labels):
        return float(logits[np.arange(len(labels)), labels].mean())


class Greedy(Accuracy):
    def of(self, logits, labels):
        logits.sort(axis=1)
        return 0.5


class Undefined(Accuracy):
    def of(self, logits, labels):
        return float("nan") if len(labels) < 5 else super().of(logits, labels)


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (Backwards, "does not prefer a model that is always right"),
        (Nowhere, "has no direction"),
        (Percent, "which is not a share"),
        (First, "depends on the order"),
        (Raw, "depends on a constant"),
        (Greedy, "changes scores or labels"),
        (Undefined, "allowed is a finite number"),
    ],
)
def test_what_breaks_the_contract_is_found(metric, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_metric(metric)


def test_a_sound_metric_passes():
    check_metric(Accuracy)
