"""Findings about the winner's probabilities: on their own, and against the linear probe's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.interval import difference
from gsfl_tune.evidence.tested import Logits, Tested, aside, lowered, numbers_of
from gsfl_tune.run.results import Calibration, Finding, Results
from gsfl_tune.training.metrics import ECE_BINS
from gsfl_tune.training.temperature import answers, log_probabilities

_RESAMPLES = 400
_ONE_SIDED = 1.645
_FEWEST_ERRORS = 20
# Answers that applications trust, and how far below their confidence is far: of ten answers that
# should be right one more is wrong. With few of them the bound would say nothing.
_CONFIDENT = 0.8
_FAR = 0.1
_FEWEST_CONFIDENT = 50


def of_confidence(results: Results, tested: Tested) -> Iterator[Finding]:
    """Checks the logits as bundles give them: each model's divided by its own temperature."""
    winner = _deployed(tested.winner, results.winner.calibration)
    own = _nll(winner, tested.labels)
    yield from _of_temperature(results.winner.calibration, own, tested)
    yield from _of_order(winner, tested.labels)
    yield from _of_confident(winner, tested.labels)
    if tested.probe is None:
        return
    probe = _deployed(tested.probe, results.probe.calibration if results.probe else None)
    (theirs,) = _nll(probe[None], tested.labels)
    nll = difference(own, theirs, metric="test/nll")
    if nll.interval.low > 0:
        yield Finding(
            "nll_worse_than_probe",
            lowered("warning", nll.interval.covers_seeds),
            numbers_of(nll),
            "The winner's probabilities are worse than the linear probe's, each with its own "
            f"temperature: NLL higher by {nll.mean:.3f} ({nll.interval.low:.3f} to "
            f"{nll.interval.high:.3f}).{aside(nll.interval.covers_seeds)}",
        )
    gap, error = _ece_gap(winner, probe, tested.labels)
    if gap - 1.96 * error > 0:
        yield Finding(
            "ece_worse_than_probe",
            lowered("warning", len(winner) > 1),
            {"mean": gap, "low": gap - 1.96 * error, "high": gap + 1.96 * error},
            "The winner's confidence is further from its accuracy than the linear probe's, each "
            f"with its own temperature: ECE higher by {gap:.3f} ({gap - 1.96 * error:.3f} to "
            f"{gap + 1.96 * error:.3f}).{aside(len(winner) > 1)}",
        )


def _of_temperature(
    calibration: Calibration | None, after: NDArray[np.float64], tested: Tested
) -> Iterator[Finding]:
    if calibration is None:
        return
    # A pair is one answer of the same network, with and without the temperature.
    change = after - _nll(tested.winner, tested.labels)
    worse = difference(change, np.zeros(len(tested.labels)), metric="test/nll")
    if worse.interval.low > 0:
        yield Finding(
            "temperature_does_not_carry_over",
            lowered("warning", worse.interval.covers_seeds),
            numbers_of(worse) | {"temperature": calibration.temperature},
            f"The winner's temperature, {calibration.temperature:.3g}, does not carry over from "
            f"the validation images to the test images: NLL is higher with it, by "
            f"{worse.mean:.3f} ({worse.interval.low:.3f} to {worse.interval.high:.3f})."
            f"{aside(worse.interval.covers_seeds)}",
        )


def _of_order(winner: Logits, labels: NDArray[np.int64]) -> Iterator[Finding]:
    """Tests whether the surer half of the answers has fewer errors than the other half."""
    shape = len(winner), len(labels)
    confidence, right = answers(np.asarray(winner, dtype=np.float64), labels, 1.0)
    wrong = 1 - right.reshape(shape).mean(axis=0)  # an image counts once
    if wrong.sum() < _FEWEST_ERRORS:
        return
    order = np.argsort(-confidence.reshape(shape).mean(axis=0), kind="stable")
    sure, unsure = wrong[order[: len(order) // 2]], wrong[order[len(order) // 2 :]]
    gap = float(unsure.mean() - sure.mean())
    error = math.sqrt(sure.var(ddof=1) / len(sure) + unsure.var(ddof=1) / len(unsure))
    if gap <= _ONE_SIDED * error:
        yield Finding(
            "confidence_tells_nothing",
            "warning",
            {
                "sure": float(sure.mean()),
                "unsure": float(unsure.mean()),
                "needed": _ONE_SIDED * error,
            },
            "Confidence is not seen to tell right from wrong: the surer half of the answers is "
            f"wrong in {100 * sure.mean():.1f} %, the other half in {100 * unsure.mean():.1f} %, "
            f"and up to {100 * _ONE_SIDED * error:.1f} points between them may come by chance. A "
            "threshold (predict --threshold) may not help.",
        )


def _of_confident(winner: Logits, labels: NDArray[np.int64]) -> Iterator[Finding]:
    """Tests whether confident answers are right far less often than their confidence says."""
    shape = len(winner), len(labels)
    confidence, right = answers(np.asarray(winner, dtype=np.float64), labels, 1.0)
    trusted = (confidence >= _CONFIDENT).reshape(shape)
    excess = np.where(trusted, (confidence - right).reshape(shape), 0.0)
    count = trusted.sum()
    if count < _FEWEST_CONFIDENT * len(winner):
        return
    gap = float(excess.sum() / count)
    # The seeds' answers to one image belong together: the variance of a ratio of sums over images.
    rest = (excess - gap * trusted).sum(axis=0)
    variance = float((rest**2).sum() / count**2)
    if len(winner) > 1 and trusted.any(axis=1).all():
        variance += float((excess.sum(axis=1) / trusted.sum(axis=1)).var(ddof=1)) / len(winner)
    least = gap - _ONE_SIDED * math.sqrt(variance)
    if least > _FAR:
        sure = float(confidence.reshape(shape)[trusted].mean())
        covered = len(winner) > 1
        yield Finding(
            "overconfident",
            lowered("warning", covered),
            {"confidence": sure, "accuracy": sure - gap, "least": least, "limit": _FAR},
            f"The winner is sure and wrong: answers with a confidence of {100 * _CONFIDENT:.0f} % "
            f"or more should be right in {100 * sure:.1f} % and are right in "
            f"{100 * (sure - gap):.1f} %, with its temperature.{aside(covered)}",
        )


def _ece_gap(winner: Logits, probe: Logits, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Returns the winner's ECE (mean over seeds) minus the probe's, and its standard error.

    The images' part of the error comes from a paired bootstrap. The seeds' part is the standard
    error of their mean.
    """
    count = len(labels)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), drawn])
    own = np.stack([_ece(each, labels, weights) for each in winner])
    gaps = own.mean(axis=0) - _ece(probe, labels, weights)
    variance = float(gaps[1:].var(ddof=1))
    if len(own) > 1:
        variance += float(own[:, 0].var(ddof=1)) / len(own)
    return float(gaps[0]), math.sqrt(variance)


def _ece(
    logits: Logits, labels: NDArray[np.int64], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Computes expected calibration errors (B,) of logits (N, C) with image weights (B, N)."""
    confidence, correct = answers(np.asarray(logits, dtype=np.float64)[None], labels, 1.0)
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    table = np.eye(ECE_BINS)[place] * (correct - confidence)[:, None]
    return np.asarray(np.abs(weights @ table).sum(axis=1) / len(labels))


def _deployed(logits: Logits, calibration: Calibration | None) -> Logits:
    temperature = 1.0 if calibration is None else calibration.temperature
    return np.asarray(logits, dtype=np.float64) / temperature


def _nll(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes NLL (seeds, N), nats per image, of logits (seeds, N, C)."""
    found = log_probabilities(np.asarray(logits, dtype=np.float64), 1.0)
    return np.asarray(-found[:, np.arange(len(labels)), labels])
