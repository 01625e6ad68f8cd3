"""Metrics against scikit-learn and against cases small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from gsfl_tune.experiment.metrics import RANKED
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.one_against_rest import auroc, average_precision
from gsfl_tune.training.temperature import thresholds


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


@pytest.mark.parametrize("missing", [0, 5])
def test_means_over_classes_agree_with_scikit_learn(random_case, missing):
    """Also where the last classes have no image, but are answered."""
    logits, labels = random_case
    labels = labels % (12 - missing)
    metrics = classification_metrics(logits, labels, ranked=RANKED)
    present, predicted = np.unique(labels), logits.argmax(1)
    assert len(present) == 12 - missing
    options = {"labels": present, "average": "macro", "zero_division": 0}
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, **options))
    recalls = recall_score(labels, predicted, labels=present, average=None)
    assert metrics["worst_recall"] == pytest.approx(recalls.min())
    ranking = torch.from_numpy(logits).log_softmax(dim=1).numpy()[:, present]
    one_hot = labels[:, None] == present
    assert metrics["auroc"] == pytest.approx(roc_auc_score(one_hot, ranking, average="macro"))
    expected = average_precision_score(one_hot, ranking, average="macro")
    assert metrics["average_precision"] == pytest.approx(expected)
    top = top_k_accuracy_score(labels, logits, k=3, labels=np.arange(12))
    assert metrics["top3"] == pytest.approx(top)


def test_equal_scores_are_ranked_as_scikit_learn_ranks_them(random_case):
    scores, labels = random_case[0].round(), random_case[1]
    one_hot = labels[:, None] == np.arange(12)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(one_hot, scores, average="macro"))
    expected = average_precision_score(one_hot, scores, average="macro")
    assert average_precision(scores, labels) == pytest.approx(expected)


def test_one_class_alone_has_no_area_and_a_perfect_precision():
    metrics = classification_metrics([[1.0, 0.0], [0.0, 1.0]], [0, 0], ranked=RANKED)
    assert "auroc" not in metrics
    assert metrics["average_precision"] == 1.0


def test_the_cost_is_that_of_the_most_probable_class():
    costs = np.array([[0.0, 1.0, 5.0], [2.0, 0.0, 1.0], [9.0, 1.0, 0.5]])
    logits = np.eye(3)[[0, 2, 0, 2]]
    metrics = classification_metrics(logits, [0, 0, 1, 2], costs=costs)
    assert metrics["expected_cost"] == pytest.approx((0 + 5 + 2 + 0.5) / 4)


def test_the_threshold_is_the_one_that_a_bundle_gets(random_case):
    logits, labels = random_case
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    confidence, correct = probabilities.max(1), logits.argmax(1) == labels
    kept = confidence >= thresholds(confidence, correct)[0.5]
    metrics = classification_metrics(logits, labels, own_threshold=True)
    assert metrics["auto_coverage"] == pytest.approx(kept.mean())
    assert metrics["auto_accuracy"] == pytest.approx(correct[kept].mean())
    assert 0.1 < kept.mean() < 0.9
    assert (~correct & kept).sum() == (~correct).sum() // 2
    # Test images must not choose it.
    assert "auto_coverage" not in classification_metrics(logits, labels)


def test_thresholds_at_the_ends():
    right = classification_metrics(np.eye(3), [0, 1, 2], own_threshold=True)
    assert (right["auto_coverage"], right["auto_accuracy"]) == (1.0, 1.0)
    unsure = classification_metrics(np.zeros((4, 2)), [0, 1, 1, 1], own_threshold=True)
    assert (unsure["auto_coverage"], unsure["auto_accuracy"]) == (0.0, 0.0)


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
