"""kNN and retrieval against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from gsfl_tune.evidence.representation import (
    neighbour_notices,
    representation_metrics,
    retrieval_metrics,
    retrieval_notices,
)
from gsfl_tune.training.neighbours import LabelledFeatures, knn_predictions


def make(count, seed, classes=4, spread=0.8):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(classes, 6))
    labels = random.integers(classes, size=count)
    values = centers[labels] + spread * random.normal(size=(count, 6))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return LabelledFeatures(values.astype(np.float32), labels.astype(np.int64))


@pytest.mark.parametrize("k", [1, 20, 200])
def test_neighbours_vote_by_their_cosine(k):
    train, others = make(150, 1), make(60, 2)
    votes = min(k, 150)
    model = KNeighborsClassifier(
        votes, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1)
    )
    expected = model.fit(train.features, train.labels).predict(others.features)
    assert np.array_equal(knn_predictions(train, others.features, k, 4), expected)


def test_more_neighbours_than_images_are_said():
    assert neighbour_notices(200) == []
    [line] = neighbour_notices(150)
    assert line == "kNN with k 200: there are 150 training images, so all of them vote"


def test_retrieval_leaves_the_query_out():
    images = make(70, 3)
    # A class of one image: no query.
    lonely = LabelledFeatures(images.features, np.append(images.labels[:-1], 7))
    top1, top5, precisions = [], [], []
    for query in range(69):
        others = np.delete(np.arange(70), query)
        scores = images.features[others] @ images.features[query]
        right = lonely.labels[others] == lonely.labels[query]
        first = right[np.argsort(-scores, kind="stable")]
        top1.append(first[0])
        top5.append(first[:5].any())
        precisions.append(average_precision_score(right, scores))
    found = retrieval_metrics(lonely)
    assert retrieval_notices(images.labels) == []
    [line] = retrieval_notices(lonely.labels)
    assert "1 of 70 validation images are the only one" in line
    assert found["retrieval_top1"] == pytest.approx(np.mean(top1))
    assert found["retrieval_top5"] == pytest.approx(np.mean(top5))
    assert found["retrieval_map"] == pytest.approx(np.mean(precisions), abs=1e-6)


def test_without_two_images_of_a_class_there_is_no_retrieval():
    alone = LabelledFeatures(np.eye(3, dtype=np.float32), np.arange(3))
    assert retrieval_metrics(alone) == {}


def test_a_representation_of_the_classes_is_judged_better_than_noise():
    good = representation_metrics(make(120, 1, spread=0.3), make(60, 2, spread=0.3), 4)
    bad = representation_metrics(make(120, 1, spread=9.0), make(60, 2, spread=9.0), 4)
    assert set(good) == {
        "linear_probe", "knn_20", "knn_200", "retrieval_top1", "retrieval_top5", "retrieval_map",
    }  # fmt: skip
    assert good["linear_probe"] > 0.9 > bad["linear_probe"]
    assert good["knn_20"] > 0.9 > bad["knn_20"]
    assert good["retrieval_map"] > 0.8 > bad["retrieval_map"]
