"""The closed form against scikit-learn's regressions, fitted fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from gsfl_tune.evidence.ridge import Ridge, probe_accuracy, stratified_folds


def table(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, columns)) * generator.uniform(0.1, 3, columns) + 5


@pytest.mark.parametrize("shape", [(60, 8), (40, 90)], ids=["tall", "wide"])
@pytest.mark.parametrize("strength", [1e-4, 1e-1])
def test_equals_fitting_every_fold_again(shape, strength):
    features = table(*shape)
    targets = np.random.default_rng(1).normal(size=(shape[0], 3))
    folds = stratified_folds(np.arange(shape[0]) % 4, seed=0)
    ridge = Ridge(features)
    alpha = strength * shape[0] * ridge.scale**2
    ((_, found),) = ridge.cross_validated(targets, folds, (strength,))
    for fold in range(5):
        held = folds == fold
        reference = Reference(alpha=alpha).fit(features[~held], targets[~held])
        np.testing.assert_allclose(found[held], reference.predict(features[held]), atol=1e-6)
    weights, intercepts = ridge.fit(targets, strength)
    whole = Reference(alpha=alpha).fit(features, targets)
    np.testing.assert_allclose(features @ weights + intercepts, whole.predict(features), atol=1e-6)


def test_folds_spread_every_class():
    labels = np.repeat(np.arange(7), [5, 10, 15, 1, 20, 9, 40])
    folds = stratified_folds(labels, seed=3)
    for label in range(7):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds)) <= 1


def test_every_question_is_answered_as_if_it_were_alone():
    features = table(90, 20)
    answers = np.stack([np.arange(90) % 3, np.arange(90) // 30, (features[:, 0] > 5).astype(int)])
    folds = stratified_folds(answers[0], seed=0)
    together = probe_accuracy(features, answers, folds)
    alone = [probe_accuracy(features, each, folds)[0] for each in answers]
    np.testing.assert_allclose(together, alone)


def test_features_that_are_all_the_same_know_nothing():
    answers = np.repeat([0, 1], [30, 10])
    folds = stratified_folds(answers, seed=0)
    assert probe_accuracy(np.ones((40, 5)), answers, folds) == pytest.approx([0.75])


def test_refuses_what_is_no_table():
    with pytest.raises(ValueError, match="finite"):
        Ridge([[1.0, np.nan], [0.0, 1.0]])
