"""Wrong labels among features whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.data.grouping import Grouping
from gsfl_tune.issues.labels import (
    doubt,
    fold_units,
    judgement,
    out_of_fold,
)

CLASSES = 4


def clouds(count=60, dim=16, spread=0.5, seed=0):
    """Features around one direction a class, and the classes."""
    random = np.random.default_rng(seed)
    centres = np.eye(dim)[:CLASSES] * 2
    labels = np.repeat(np.arange(CLASSES), count)
    features = centres[labels] + random.normal(0, spread, (len(labels), dim))
    return features.astype(np.float32), labels


def test_planted_labels_are_the_first_and_their_share_is_told():
    features, truth = clouds(spread=0.25)
    labels = truth.copy()
    planted = np.arange(0, len(labels), 20)
    labels[planted] = (labels[planted] + 1) % CLASSES
    predictions = out_of_fold(features, labels, np.arange(len(labels)), CLASSES)
    found = doubt(predictions, labels)
    assert set(found.rows[: len(planted)].tolist()) == set(planted.tolist())
    assert (found.suggested[: len(planted)] == truth[found.rows[: len(planted)]]).all()
    assert (found.scores[: len(planted)] > 0.5).all()
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert found.noise.share == pytest.approx(len(planted) / len(labels), abs=0.02)
    assert judgement(predictions, labels) == []


def test_a_copy_with_the_same_wrong_label_does_not_vouch_for_it():
    # In a space so large that an image is most like its own copies.
    features, truth = clouds(count=30, dim=400, spread=0.12)
    features = np.concatenate([features, np.repeat(features[:1], 8, axis=0)])
    labels = np.concatenate([truth, np.zeros(8, dtype=np.int64)])
    labels[[0, *range(len(truth), len(labels))]] = 2
    units = np.arange(len(labels))
    units[len(truth) :] = 0
    together = doubt(out_of_fold(features, labels, units, CLASSES), labels)
    apart = doubt(out_of_fold(features, labels, np.arange(len(labels)), CLASSES), labels)
    assert set(together.rows.tolist()) == {0, *range(len(truth), len(labels))}
    assert len(apart.rows) < len(together.rows)


def test_features_that_know_nothing_are_not_believed():
    features, labels = clouds(spread=50.0)
    predictions = out_of_fold(features, labels, np.arange(len(labels)), CLASSES)
    told = judgement(predictions, labels)
    assert len(told) == 1
    assert "of the images: few of the wrong labels" in told[0]
    assert len(doubt(predictions, labels).rows) < 0.1 * len(labels)


def test_a_class_of_copies_is_not_judged_and_told():
    features, labels = clouds(count=20)
    units = np.arange(len(labels))
    units[labels == 3] = 1000
    predictions = out_of_fold(features, labels, units, CLASSES)
    assert (predictions.judged == (labels != 3)).all()
    assert not np.isin(doubt(predictions, labels).rows, np.flatnonzero(labels == 3)).any()
    assert judgement(predictions, labels)[0].startswith("20 images are alone in their class")


def test_a_class_that_is_one_burst_is_divided_by_its_copies():
    labels = np.array([0, 0, 0, 1, 1, 1])
    copies = np.array([0, 1, 1, 2, 3, 4])
    units = np.array([7, 7, 7, 8, 8, 9])
    found = fold_units(Grouping(copies, units), labels)
    # All of the first class were one unit; its two copies still are.
    assert found[0] != found[1] == found[2]
    assert found[3] == found[4] != found[5]
    assert not set(found[:3]) & set(found[3:])


@pytest.mark.parametrize(("classes", "each"), [(6, 4), (3, 2), (5, 1)])
def test_classes_with_fewer_images_than_folds_are_judged_as_far_as_they_can(classes, each):
    features = np.random.default_rng(0).normal(size=(classes * each, 16)).astype(np.float32)
    labels = np.repeat(np.arange(classes), each)
    found = out_of_fold(features, labels, np.arange(len(labels)), classes)
    assert found.logits.shape == (len(labels), classes)
    # A single image of a class has no other one that could tell.
    assert found.judged.tolist() == [each > 1] * len(labels)
