"""Calibration against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gsfl_tune.evidence import calibration, calibration_report
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.temperature import calibrate


def logits_of(*confidences: float) -> np.ndarray:
    """Two classes; class 0 is said with these probabilities."""
    return np.log([[each, 1 - each] for each in confidences])


def test_equals_what_is_computed_by_hand():
    found = calibration(logits_of(0.62, 0.62, 0.91, 0.91), [0, 1, 0, 0])
    # 0.62 twice, right once; 0.91 twice, right twice.
    assert found["ece"] == pytest.approx(0.5 * abs(0.5 - 0.62) + 0.5 * abs(1.0 - 0.91))
    expected = -(math.log(0.62) + math.log(0.38) + 2 * math.log(0.91)) / 4
    assert found["nll"] == pytest.approx(expected)
    low, high = found["bins"]
    assert (low["low"], low["high"]) == pytest.approx((9 / 15, 10 / 15))
    assert (low["count"], low["confidence"], low["accuracy"]) == pytest.approx((2, 0.62, 0.5))
    assert (high["count"], high["confidence"], high["accuracy"]) == pytest.approx((2, 0.91, 1.0))


def test_seeds_are_counted_together_and_one_seed_is_the_metric_of_the_results():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, 200, 6))
    labels = generator.integers(0, 6, size=200)
    together = calibration(logits, labels)
    assert sum(each["count"] for each in together["bins"]) == 600
    assert together["nll"] == pytest.approx(
        np.mean([classification_metrics(each, labels)["nll"] for each in logits])
    )
    single = calibration(logits[0], labels)
    assert single["ece"] == pytest.approx(classification_metrics(logits[0], labels)["ece"])


def test_the_report_is_before_and_after_and_has_what_unknown_costs():
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (2, 400, 4))
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(4, p=share) for share in shares])
    logits[1] = logits[0]
    chosen = calibrate(3 * logits, labels, 3 * logits, labels)
    found = calibration_report(3 * logits, labels, chosen)
    assert found["temperature"] == chosen.temperature == pytest.approx(3, rel=0.2)
    assert found["nll"] == pytest.approx(chosen.before["nll"].mean)
    assert found["after"]["nll"] == pytest.approx(chosen.after["nll"].mean)
    assert found["after"]["ece"] < 0.5 * found["ece"]
    coverage, risk, _ = found["risk_coverage"][-1]
    wrong = (logits[0].argmax(axis=1) != labels).mean()
    assert (coverage, risk) == (1.0, pytest.approx(wrong))
    auto = found["auto"]
    # On these images themselves half of the errors are left out.
    assert auto["coverage"] * auto["risk"] == pytest.approx(wrong / 2, abs=2 / 400)
    assert auto["risk"] < wrong
    plain = calibration_report(3 * logits, labels, None)
    assert "after" not in plain
    assert plain["risk_coverage"][-1][1] == pytest.approx(wrong)


def test_certainty_is_in_the_last_bin():
    found = calibration([[1000.0, 0.0], [0.0, 1000.0]], [0, 0])
    assert found["bins"] == [
        {"low": 14 / 15, "high": 1.0, "count": 2, "confidence": 1.0, "accuracy": 0.5}
    ]
