"""The report says what changed, which classes are lost, and what labelled images show."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.adaptation import Adapted, Judged, Settings


def record(epoch, counts, changed):
    total = sum(counts)
    shares = [count / total for count in counts if count]
    spread = -sum(share * math.log(share) for share in shares)
    return {
        "epoch": epoch,
        "entropy": 1.0 / (1 + epoch),
        "spread": spread,
        "agreement": 0.5,
        "changed": changed,
        "counts": counts,
    }


def adapted(before, after, judged=None):
    records = [record(0, before, 0.0), record(1, after, 0.25)]
    names = [f"class {number}" for number in range(len(before))]
    return Adapted(Path("out"), "in", 40, "ab", [], names, Settings(), records, judged)


def test_lost_classes_are_named_with_the_images_that_they_had():
    found = adapted([10, 10, 15, 5], [0, 20, 20, 0])
    assert found.lost == {"class 0": 10, "class 3": 5}
    assert "2 of 4 classes are no answer any more" in found.warnings[0]
    assert "class 0 (10), class 3 (5)" in found.warnings[0]
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["answers"]["class 0"] == {"before": 10, "after": 0}
    assert content["effective_classes"]["after"] == pytest.approx(2.0)
    assert content["changed"] == 0.25
    assert content["judge"] is None


def test_answers_that_gather_are_a_warning():
    assert adapted([10, 10, 10, 10], [11, 9, 10, 10]).warnings == []
    (line,) = adapted([10, 10, 10, 10], [37, 1, 1, 1]).warnings
    assert "gather in few classes" in line
    assert "4.0 before" in line


def scores(labels, right):
    wrong = (labels + 1) % 4
    return np.eye(4)[np.where(right, labels, wrong)]


@pytest.mark.parametrize(
    ("before", "after", "said"), [(50, 90, "better on"), (90, 50, "WORSE"), (50, 51, "do not show")]
)
def test_accuracies_are_compared_on_the_same_images(before, after, said):
    labels = np.arange(100) % 4
    judged = Judged.of(
        scores(labels, np.arange(100) < before), scores(labels, np.arange(100) < after), labels, 2
    )
    assert (judged.before, judged.after, judged.alike) == (before / 100, after / 100, 2)
    # The images differ by (after - before) in pairs: the interval of a paired difference.
    pairs = (np.arange(100) < after).astype(float) - (np.arange(100) < before)
    half = 1.959964 * pairs.std(ddof=1) / 10
    assert judged.difference.interval.low == pytest.approx(pairs.mean() - half, abs=1e-3)
    assert "one seed" in judged.difference.interval.method
    assert said in judged.sentence
    found = adapted([10, 10], [10, 10], judged)
    assert bool(found.warnings) == (said == "WORSE")
    assert found.to_json()["judge"]["after"] == after / 100
