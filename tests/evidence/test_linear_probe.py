"""The linear probe on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.evidence import choose_strength, linear_probe


def clusters(
    count: int, classes: int = 6, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    directions = np.random.default_rng(99).normal(size=(classes, 32))
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = directions[labels] + noise * generator.normal(size=(count, 32))
    return features.astype(np.float32), labels


def test_separable_classes_are_found_with_either_kind_of_validation():
    train, labels = clusters(120)
    test, truth = clusters(60, seed=1)
    validation, validation_labels = clusters(60, seed=2)
    given = linear_probe(
        train,
        labels,
        test,
        validation_features=validation,
        validation_labels=validation_labels,
    )
    held_out = linear_probe(train, labels, test)
    assert given.shape == (60, 6)
    assert given.dtype == np.float32
    assert (given.argmax(1) == truth).all()
    assert (held_out.argmax(1) == truth).all()


def test_the_scale_of_a_feature_does_not_matter():
    train, labels = clusters(120, noise=2.0)
    test, _ = clusters(60, noise=2.0, seed=1)
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(120, 1)).astype(np.float32)
    np.testing.assert_allclose(
        linear_probe(train, labels, test), linear_probe(train * lengths, labels, test), atol=2e-3
    )


def test_noisy_features_ask_for_more_regularisation():
    clean, labels = clusters(90, noise=0.3)
    noisy, _ = clusters(90, noise=6.0)
    held, held_labels = clusters(300, noise=6.0, seed=3)
    strength = choose_strength(noisy, labels, held, held_labels, class_count=6)
    assert strength < 1.0
    assert choose_strength(clean, labels, clean, labels, class_count=6) > strength


def test_validation_images_join_the_final_fit():
    train, labels = clusters(120)
    first = labels < 3
    logits = linear_probe(
        train[first],
        labels[first],
        train,
        validation_features=train,
        validation_labels=labels,
        class_count=6,
    )
    assert (logits.argmax(1) == labels).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_and_classes_without_images(classes):
    train, labels = clusters(40, classes=classes)
    logits = linear_probe(train, labels, train, class_count=4)
    assert logits.shape == (40, 4)
    assert (logits.argmax(1) == labels).all()
    assert np.isfinite(logits).all()


def test_single_images_leave_nothing_to_hold_out():
    train, labels = clusters(6)
    with pytest.raises(ValueError, match="single image"):
        linear_probe(train, labels, train)
