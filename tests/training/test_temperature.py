"""Temperatures and thresholds against what is known of simulated answers, or worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.temperature import (
    answers,
    calibrate,
    fit_temperature,
    log_probabilities,
    risk_coverage,
    thresholds,
)


def drawn(seed: int, count: int, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth: labels are drawn from it."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 5))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=share) for share in shares])
    return np.stack([logits] * seeds), labels


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found(true):
    logits, labels = drawn(0, 4000)
    assert fit_temperature(true * logits, labels) == pytest.approx(true, rel=0.06)


def test_it_is_the_lowest_nll_there_is():
    logits, labels = drawn(1, 60, seeds=2)
    logits = logits * np.array([1.0, 2.5])[:, None, None]
    for ensemble in (False, True):
        found = fit_temperature(logits, labels, ensemble=ensemble)

        def nll(temperature, ensemble=ensemble):
            rows = log_probabilities(logits, temperature, ensemble=ensemble)
            return np.mean([classification_metrics(row, labels)["nll"] for row in rows])

        assert nll(found) <= min(nll(found * factor) for factor in (0.5, 0.98, 1.02, 2.0))


def test_answers_that_are_all_right_say_nothing_of_a_temperature():
    logits = np.log([[[0.6, 0.4], [0.3, 0.7]]])
    found = calibrate(logits, [0, 1], logits, [0, 0])
    assert (found.temperature, found.wrong, found.rejections, found.half) == (1.0, 0, [], None)
    assert found.after == found.before


def test_what_was_overconfident_on_validation_is_better_on_test_images():
    (validation, labels), (test, truth) = drawn(2, 500, seeds=2), drawn(3, 500, seeds=3)
    found = calibrate(3 * validation, labels, 3 * test, truth)
    assert (found.images, found.seeds) == (500, 2)
    assert len(found.after["nll"].values) == 3
    assert found.after["nll"].mean < found.before["nll"].mean - 0.2
    assert found.after["ece"].mean < 0.5 * found.before["ece"].mean
    assert found.after["accuracy"] == found.before["accuracy"]
    assert found.carries_over
    # Where the truth is another one, that is told.
    assert not calibrate(3 * validation, labels, 0.2 * test, truth).carries_over


def test_an_ensemble_is_the_mean_of_probabilities():
    logits = np.log([[[0.9, 0.1]], [[0.2, 0.8]]])
    np.testing.assert_allclose(
        np.exp(log_probabilities(logits, 1.0, ensemble=True)), [[[0.55, 0.45]]]
    )
    huge = np.array([[[0.0, 5000.0]], [[0.0, 4000.0]]])
    assert np.isfinite(log_probabilities(huge, 1.0, ensemble=True)).all()
    confidence, correct = answers(logits, np.array([0]), 1.0, ensemble=True)
    assert (confidence[0], correct[0]) == (pytest.approx(0.55), True)


def test_thresholds_reject_the_share_of_errors_that_is_asked_for():
    confidence = np.array([0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
    correct = np.array([False, True, False, False, True, False])
    found = thresholds(confidence, correct)
    # Half of four errors are those at 0.3 and 0.6; half-way to the next answer, 0.7.
    assert found[0.5] == pytest.approx(0.65)
    for share, threshold in found.items():
        assert (confidence[~correct] < threshold).mean() >= share
    assert (confidence[~correct] < found[0.9]).all()
    assert thresholds(np.array([0.5]), np.array([True])) == {}
    # Certain errors are below a threshold too.
    assert thresholds(np.array([1.0]), np.array([False]))[0.5] > 1.0


def test_risk_falls_where_confidence_tells_errors():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    curve = risk_coverage(confidence, np.array([True, True, False, False]))
    assert curve == [
        [0.25, 0.0, 0.9], [0.5, 0.0, 0.8], [0.75, pytest.approx(1 / 3), 0.7], [1.0, 0.5, 0.6],
    ]  # fmt: skip
    assert len(risk_coverage(np.linspace(0, 1, 5000), np.ones(5000, bool))) == 100
