"""The linear probe: a baseline classifier on the frozen features that the heads see."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.training.metrics import classification_metrics

Features = NDArray[np.floating]
Labels = NDArray[np.int64]

# Inverse L2 strengths, for features whose coordinates have mean square 1.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# If the first or last is best, the search continues in steps of 10 up to these limits.
_LEAST, _MOST = 1e-6, 100.0
_ABSENT = -1e4
# From this product of images, dimensions and classes on, BLAS uses all cores.
_THREADED = 1e9


@dataclass(frozen=True)
class LinearProbe:
    """Holds a fitted linear classifier of unit features.

    Attributes:
        weights: (C, D).
        bias: (C,); -1e4 for a class without training images.
        strength: Inverse regularisation that it was fitted with (scikit-learn's ``C``).
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Computes logits (N, C) of features (N, D) of any length."""
        unit = _unit(features)
        return np.asarray(unit @ self.weights.T + self.bias)


@dataclass(frozen=True)
class TunedProbe:
    """Holds a linear probe and the logits that its regularisation was chosen by.

    Attributes:
        probe: Fitted on the images that a winner and its control are retrained on.
        validation_logits: (V, C) logits of the validation images, from the probe fitted on the
            training images alone.
    """

    probe: LinearProbe
    validation_logits: NDArray[np.float32]


def tune_probe(
    train_features: Features,
    train_labels: Labels,
    validation_features: Features,
    validation_labels: Labels,
    *,
    class_count: int,
    strengths: tuple[float, ...] = STRENGTHS,
    refit: bool = True,
) -> TunedProbe:
    """Fits a logistic regression with the regularisation that is best on validation images.

    The best has the highest validation accuracy, then the lowest NLL.

    Args:
        train_features: (N, D); L2-normalised here, then scaled to mean square 1 per coordinate.
        train_labels: (N,) classes.
        validation_features: (V, D).
        validation_labels: (V,) classes.
        class_count: C.
        strengths: Candidates for scikit-learn's ``C``, ascending; if the first or the last is the
            best of several, smaller or larger ones are tried.
        refit: Whether the probe is then fitted again on both parts together.

    Raises:
        ValueError: If features are not (N, D), or there is no validation image.
    """
    if not len(validation_labels):
        raise ValueError("no validation images to choose the regularisation on")
    tried: dict[float, tuple[tuple[float, float], LinearProbe, NDArray[np.float32]]] = {}
    latest: LinearProbe | None = None

    def quality(strength: float) -> tuple[float, float]:
        nonlocal latest
        if strength not in tried:
            # The next strength has similar weights: a warm start needs a third of the iterations.
            with activity(f"fitting a linear probe, C = {strength:g}"):
                latest = fit_probe(
                    train_features, train_labels, strength, class_count, start=latest
                )
            logits = latest.logits(validation_features)
            metrics = classification_metrics(logits, validation_labels)
            tried[strength] = (metrics["accuracy"], -metrics["nll"]), latest, logits
        return tried[strength][0]

    best = max(strengths, key=quality)
    while len(strengths) > 1:
        further = best / 10 if best == min(tried) else best * 10 if best == max(tried) else 0.0
        further = float(f"{further:.6g}")
        if not _LEAST <= further <= _MOST or quality(further) <= quality(best):
            break
        best = further
    if not refit:
        return TunedProbe(*tried[best][1:])
    with activity("fitting the linear probe on all images"):
        whole = fit_probe(
            np.concatenate([train_features, validation_features]),
            np.concatenate([train_labels, validation_labels]),
            best,
            class_count,
        )
    return TunedProbe(whole, tried[best][2])


def fit_probe(
    features: Features,
    labels: Labels,
    strength: float,
    class_count: int,
    *,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Fits a logistic regression with one regularisation strength.

    Args:
        features: (N, D), L2-normalised here.
        labels: (N,) classes.
        strength: scikit-learn's ``C``.
        class_count: C.
        start: Probe with another strength on the same images, from which the fit starts.

    Raises:
        ValueError: If features are not (N, D).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    unit = _unit(features)
    dim = unit.shape[1]
    weights = np.zeros((class_count, dim), dtype=np.float32)
    bias = np.full(class_count, _ABSENT, dtype=np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present[0]] = 0.0
        return LinearProbe(weights, bias, strength)
    # Coordinates have mean square 1, so that a strength means the same for every D.
    scale = np.float32(np.sqrt(dim))
    # float32 with an iteration limit reaches the accuracy of float64 in a third of the time.
    model = LogisticRegression(C=strength, max_iter=300, warm_start=start is not None)
    if start is not None and len(present) > 2:
        model.classes_ = present
        model.coef_ = start.weights[present] / scale
        model.intercept_ = start.bias[present].copy()
    # Threads do not speed up small products. If other processes use the cores, threads that wait
    # for each other turn 9 s into 50.
    threads = 1 if len(unit) * dim * len(present) < _THREADED else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(unit * scale, labels)
    found, offsets = model.coef_ * scale, model.intercept_
    if len(found) == 1:  # two classes: scikit-learn keeps one margin
        found = np.concatenate([np.zeros_like(found), found])
        offsets = np.concatenate([np.zeros_like(offsets), offsets])
    weights[present], bias[present] = found, offsets
    return LinearProbe(weights, bias, strength)


def _unit(features: Features) -> NDArray[np.float32]:
    values = np.asarray(features, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"features must be (N, D), got {values.shape}")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, 1e-12))
