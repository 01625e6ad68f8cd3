"""Metrics against scikit-learn and against cases small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    top_k_accuracy_score,
)

from gsfl_tune.training.metrics import classification_metrics


@pytest.fixture
def random_case() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(400, 12))
    labels = generator.integers(0, 12, size=400)
    logits[np.arange(400), labels] += 1.5
    return logits, labels


def test_agrees_with_scikit_learn(random_case):
    logits, labels = random_case
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    metrics = classification_metrics(logits, labels)
    every = np.arange(12)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, logits.argmax(1))
    )
    assert metrics["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=every))
    assert metrics["nll"] == pytest.approx(log_loss(labels, probabilities, labels=every))


def test_calibration_error_equals_a_loop_over_bins(random_case):
    logits, labels = random_case
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    confidence, correct = probabilities.max(1), logits.argmax(1) == labels
    expected = 0.0
    for bin_number in range(15):
        inside = (confidence > bin_number / 15) & (confidence <= (bin_number + 1) / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_and_arrays_give_the_same(random_case, dtype):
    logits = torch.from_numpy(random_case[0]).to(dtype)
    labels = torch.from_numpy(random_case[1])
    from_tensor = classification_metrics(logits.requires_grad_(), labels)
    assert from_tensor == classification_metrics(logits.detach().double().numpy(), random_case[1])


def test_worked_by_hand():
    # Two of class 0 (one right), one of class 1 (right), class 2 does not occur.
    logits = np.log([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    metrics = classification_metrics(logits, [0, 0, 1])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["balanced_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert metrics["nll"] == pytest.approx(-np.log([0.8, 0.2, 0.6]).mean())
    # 0.8, 0.7 and 0.6 fall in three bins: (0.2 + 0.7 + 0.4) / 3.
    assert metrics["ece"] == pytest.approx(1.3 / 3)


def test_fewer_than_five_classes_are_all_in_the_top_five():
    assert classification_metrics([[0.0, 1.0], [0.0, 1.0]], [0, 1])["top5"] == 1.0


def test_a_constant_output_gains_nothing_from_ties():
    metrics = classification_metrics(np.zeros((10, 10)), np.arange(10))
    assert metrics["accuracy"] == pytest.approx(0.1)
    assert metrics["top5"] == pytest.approx(0.5)
    assert metrics["nll"] == pytest.approx(np.log(10))
    assert metrics["ece"] == pytest.approx(0.0)


def test_huge_logits_stay_finite():
    metrics = classification_metrics([[1e4, -1e4], [1e4, -1e4]], [0, 1])
    assert metrics["accuracy"] == 0.5
    assert metrics["nll"] == pytest.approx(1e4)
    assert metrics["ece"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        (np.zeros((2, 3)), [0], "shape|must be"),
        (np.zeros((0, 3)), [], "empty"),
        (np.zeros((1, 3)), [3], "3 classes"),
        (np.zeros((1, 3)), [-1], "3 classes"),
    ],
)
def test_refuses_what_does_not_fit(logits, labels, match):
    with pytest.raises(ValueError, match=match):
        classification_metrics(logits, labels)
