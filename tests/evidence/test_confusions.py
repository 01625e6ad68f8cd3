"""Confusions against loops over the images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gsfl_tune.evidence import (
    attraction,
    confusion_matrix,
    confusion_report,
    group_errors,
    most_confused,
    per_class_accuracy,
    worst_classes,
)

CLASSES = 7
GROUPS = np.array([0, 0, 0, 1, 1, 2, 2])


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, size=500)
    predicted = np.where(
        generator.uniform(size=500) < 0.6, labels, generator.integers(0, CLASSES, size=500)
    )
    return predicted, labels


def test_matrix_and_class_accuracy_equal_a_loop(case):
    predicted, labels = case
    matrix = confusion_matrix(predicted, labels, CLASSES)
    expected = np.zeros((CLASSES, CLASSES), dtype=int)
    for guess, truth in zip(predicted, labels, strict=True):
        expected[truth, guess] += 1
    assert (matrix == expected).all()
    for each, accuracy in enumerate(per_class_accuracy(matrix)):
        assert accuracy == pytest.approx((predicted[labels == each] == each).mean())


def test_group_errors_equal_a_loop(case):
    predicted, labels = case
    inside = across = 0
    for guess, truth in zip(predicted, labels, strict=True):
        if guess != truth:
            inside += GROUPS[guess] == GROUPS[truth]
            across += GROUPS[guess] != GROUPS[truth]
    errors = group_errors(confusion_matrix(predicted, labels, CLASSES), GROUPS)
    assert errors.inside == pytest.approx(inside / 500)
    assert errors.across == pytest.approx(across / 500)
    assert errors.share_inside == pytest.approx(inside / (inside + across))


def test_random_errors_stay_inside_as_often_as_expected():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, CLASSES, size=40_000)
    predicted = (labels + generator.integers(1, CLASSES, size=40_000)) % CLASSES
    errors = group_errors(confusion_matrix(predicted, labels, CLASSES), GROUPS)
    assert errors.share_inside == pytest.approx(errors.expected_inside, abs=0.01)


def test_pairs_count_both_directions_and_leave_out_what_never_happens():
    labels = [0, 0, 0, 1, 1, 2, 2, 2]
    predicted = [1, 1, 0, 0, 1, 2, 2, 0]
    pairs = most_confused(confusion_matrix(predicted, labels, 3))
    assert [(pair.first, pair.second, pair.count) for pair in pairs] == [(0, 1, 3), (0, 2, 1)]
    assert (pairs[0].first_as_second, pairs[0].second_as_first) == (2, 1)
    assert pairs[0].share == pytest.approx(3 / 5)


def test_the_worst_tenth_is_at_least_one_class_and_skips_absent_ones():
    labels = [0, 0, 1, 1, 3]
    predicted = [0, 0, 0, 1, 3]
    mean, members = worst_classes(confusion_matrix(predicted, labels, 5))
    assert (mean, members) == (0.5, [1])
    mean, members = worst_classes(confusion_matrix(predicted, labels, 5), share=0.5)
    assert (mean, members) == (0.75, [1, 0])


def test_no_error_is_not_a_division_by_zero():
    errors = group_errors(np.eye(3, dtype=int), [0, 0, 1])
    assert (errors.inside, errors.across, errors.share_inside) == (0.0, 0.0, None)


def test_a_class_attracts_errors_if_most_of_many_from_several_classes_name_it():
    matrix = 20 * np.eye(5, dtype=int)
    matrix[:, 1] += [10, 0, 10, 10, 0]
    found = attraction(matrix)
    assert found is not None
    assert (found.target, found.share, found.sources) == (1, 1.0, 3)
    assert (
        "100 % of the wrong answers name one class, bee, for images of 3 other"
        in found.sentence("bee")
    )
    # Two seeds that agree are no further errors; three in five are most of them only of many.
    assert attraction(matrix, answers=2) is None
    matrix[2, 3] += 20
    assert attraction(matrix) is None
    assert attraction(10 * matrix) is not None
    # A pair and few classes are nothing of the kind.
    matrix[0, 1] += 40
    assert attraction(10 * matrix) is None
    assert attraction(np.array([[20, 30, 0], [0, 20, 0], [0, 30, 20]])) is None


def test_report_is_json_with_names_and_counts_all_seeds():
    logits = np.zeros((2, 3, 4))
    logits[:, [0, 1, 2], [0, 1, 1]] = 1.0
    names = ["ant", "bee", "cat", "dog"]
    report = json.loads(
        json.dumps(confusion_report(logits, [0, 1, 2], names, [0, 0, 1, 1]), allow_nan=False)
    )
    assert report["per_class_accuracy"] == {"ant": 1.0, "bee": 1.0, "cat": 0.0, "dog": None}
    assert report["worst_tenth"] == {"mean": 0.0, "classes": ["cat"]}
    assert report["most_confused"][0]["classes"] == ["bee", "cat"]
    assert report["most_confused"][0]["counts"] == [0, 2]
    assert report["group_errors"]["across"] == pytest.approx(1 / 3)
