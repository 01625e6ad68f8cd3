"""The linear probe on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.evidence.linear_probe import TunedProbe, fit_probe, tune_probe


def clusters(
    count: int, classes: int = 6, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    directions = np.random.default_rng(99).normal(size=(classes, 32))
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = directions[labels] + noise * generator.normal(size=(count, 32))
    return features.astype(np.float32), labels


def tuned(noise: float = 0.5) -> TunedProbe:
    train, labels = clusters(120, noise=noise)
    validation, validation_labels = clusters(60, noise=noise, seed=2)
    return tune_probe(train, labels, validation, validation_labels, class_count=6)


def test_separable_classes_are_found():
    test, truth = clusters(60, seed=1)
    found = tuned()
    logits = found.probe.logits(test)
    assert logits.shape == (60, 6)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == truth).all()
    assert found.validation_logits.shape == (60, 6)


def test_what_chose_the_strength_has_not_seen_validation_images():
    """Noisy features: a probe that was fitted on them knows more of them."""
    train, labels = clusters(120, noise=6.0)
    validation, validation_labels = clusters(60, noise=6.0, seed=2)
    found = tune_probe(
        train, labels, validation, validation_labels, class_count=6, strengths=(10.0,)
    )
    right = [
        (logits.argmax(1) == validation_labels).mean()
        for logits in (found.validation_logits, found.probe.logits(validation))
    ]
    assert right[0] + 0.2 < right[1]


def test_the_scale_of_a_feature_does_not_matter():
    train, labels = clusters(120, noise=2.0)
    test, _ = clusters(60, noise=2.0, seed=1)
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(120, 1)).astype(np.float32)
    one, other = (fit_probe(each, labels, 0.1, 6) for each in (train, train * lengths))
    np.testing.assert_allclose(one.logits(test), other.logits(test), atol=2e-3)


def test_noisy_features_ask_for_more_regularisation():
    assert tuned(noise=6.0).probe.strength < tuned(noise=1.0).probe.strength


def test_the_end_of_the_strengths_is_not_the_end():
    train, labels = clusters(90, noise=6.0)
    held, held_labels = clusters(300, noise=6.0, seed=3)
    wide = tune_probe(train, labels, held, held_labels, class_count=6)
    narrow = tune_probe(train, labels, held, held_labels, class_count=6, strengths=(1.0, 10.0))
    assert narrow.probe.strength < 1.0
    assert narrow.probe.strength <= 10 * wide.probe.strength


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_and_classes_without_images(classes):
    train, labels = clusters(40, classes=classes)
    logits = fit_probe(train, labels, 1.0, 4).logits(train)
    assert logits.shape == (40, 4)
    assert (logits.argmax(1) == labels).all()
    assert np.isfinite(logits).all()


def test_nothing_to_choose_on_is_refused():
    train, labels = clusters(12)
    with pytest.raises(ValueError, match="no validation images"):
        tune_probe(train, labels, train[:0], labels[:0], class_count=6)
