"""The yardstick: a linear classifier on the frozen features that the heads see."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.training.metrics import classification_metrics

Features = NDArray[np.floating]
Labels = NDArray[np.int64]

# Inverse L2 strengths, for features whose coordinates have mean square 1.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ABSENT = -1e4


def linear_probe(
    train_features: Features,
    train_labels: Labels,
    test_features: Features,
    *,
    validation_features: Features | None = None,
    validation_labels: Labels | None = None,
    class_count: int | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Fits a logistic regression and predicts the test images.

    The regularisation is chosen by validation accuracy (then by NLL); the probe is then fitted
    again on training and validation together, as the winner and its control are.

    Args:
        train_features: (N, D); L2-normalised here, then scaled to mean square 1 a coordinate.
        train_labels: (N,) classes.
        test_features: (M, D).
        validation_features: (V, D). Without them, a stratified fifth of the training images
            chooses the regularisation.
        validation_labels: (V,) classes.
        class_count: C; default: one more than the largest label.
        strengths: Candidates for scikit-learn's ``C``.
        seed: Of the stratified split.

    Returns:
        (M, C) logits of the test images. A class without training images gets -1e4.

    Raises:
        ValueError: If features are not (N, D), or nothing can be held out.
    """
    everything, labels = np.asarray(train_features), np.asarray(train_labels)
    if validation_features is not None and validation_labels is not None:
        parts = (everything, labels, validation_features, np.asarray(validation_labels))
        everything = np.concatenate([everything, validation_features])
        labels = np.concatenate([labels, validation_labels])
    else:
        parts = _hold_out(everything, labels, seed)
    count = class_count or int(labels.max()) + 1
    best = choose_strength(*parts, class_count=count, strengths=strengths)
    with activity("fitting the linear probe on all images"):
        return _fit_and_score(everything, labels, test_features, best, count)


def choose_strength(
    train_features: Features,
    train_labels: Labels,
    validation_features: Features,
    validation_labels: Labels,
    *,
    class_count: int,
    strengths: tuple[float, ...] = STRENGTHS,
) -> float:
    """The inverse regularisation with the best validation accuracy, then the best NLL."""

    def quality(strength: float) -> tuple[float, float]:
        with activity(f"fitting a linear probe, C = {strength:g}"):
            logits = _fit_and_score(
                train_features, train_labels, validation_features, strength, class_count
            )
        metrics = classification_metrics(logits, validation_labels)
        return metrics["accuracy"], -metrics["nll"]

    return max(strengths, key=quality) if len(strengths) > 1 else strengths[0]


def _scaled(features: Features) -> NDArray[np.float32]:
    values = np.asarray(features, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"features must be (N, D), got {values.shape}")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, 1e-12) * np.float32(np.sqrt(values.shape[1])))


def _hold_out(
    features: Features, labels: Labels, seed: int, share: float = 0.2
) -> tuple[Features, Labels, Features, Labels]:
    """Holds out `share` of every class; a class of one image stays whole in the fitting part."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held[members[: int(np.ceil(share * len(members))) if len(members) > 1 else 0]] = True
    if not held.any():
        raise ValueError("every class has a single image: nothing to choose the strength on")
    return features[~held], labels[~held], features[held], labels[held]


def _fit_and_score(
    features: Features,
    labels: Labels,
    scored: Features,
    strength: float,
    class_count: int,
) -> NDArray[np.float32]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    logits = np.full((len(scored), class_count), _ABSENT, dtype=np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        logits[:, present[0]] = 0.0
        return logits
    # float32 and a bound on iterations: the accuracy of float64 in a third of the time.
    model = LogisticRegression(C=strength, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_scaled(features), labels)
    decision = model.decision_function(_scaled(scored))
    if decision.ndim == 1:  # two classes: scikit-learn keeps one margin
        decision = np.stack([np.zeros_like(decision), decision], axis=1)
    logits[:, present] = decision
    return logits
