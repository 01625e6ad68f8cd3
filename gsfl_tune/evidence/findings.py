"""Checks of the results for problems; each problem found becomes a finding with its numbers.

A finding that something is worse rests on a paired test. A finding that something is not shown
contains the interval or the one-sided bound at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.findings_of_parts import of_parts
from gsfl_tune.evidence.findings_of_search import Searched, of_search
from gsfl_tune.evidence.interval import difference
from gsfl_tune.evidence.yardstick import Yardstick
from gsfl_tune.experiment.edges import range_end
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.experiment.space import Space
from gsfl_tune.run.results import Calibration, Difference, Finding, Results
from gsfl_tune.run.verdict import (
    TITLES,
    Verdict,
    is_ahead,
    sentence_of_ahead,
    validated,
    verdicts,
)
from gsfl_tune.training import Predictions
from gsfl_tune.training.metrics import ECE_BINS
from gsfl_tune.training.temperature import answers, log_probabilities

SEVERITIES = ("severe", "warning", "note")

FEW_IMAGES = 200
_RESAMPLES = 400
_ONE_SIDED = 1.645
_FEWEST_ERRORS = 20

Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Tested:
    """Holds the models' logits of the test images, before any temperature.

    Attributes:
        labels: (N,) classes.
        winner: (seeds, N, C) logits.
        control: (seeds, N, C) logits; None without a control.
        probe: (N, C) logits; None without a probe.
    """

    labels: NDArray[np.int64]
    winner: Logits
    control: Logits | None = None
    probe: Logits | None = None

    @classmethod
    def of(
        cls,
        winner: Sequence[Predictions],
        control: Sequence[Predictions],
        yardstick: Yardstick,
    ) -> Tested:
        """Builds it from predictions, one per seed; `control` may be empty."""
        return cls(
            np.asarray(winner[0].labels, dtype=np.int64),
            np.stack([each.logits for each in winner]),
            np.stack([each.logits for each in control]) if control else None,
            yardstick.logits,
        )


def find(
    results: Results,
    evidence: Mapping[str, Any],
    tested: Tested,
    *,
    space: Space | None = None,
    searched: Searched | None = None,
) -> list[Finding]:
    """Finds problems that a reader should know before relying on the results.

    Args:
        results: All results except findings; confidence is checked with their temperatures.
        evidence: Content of ``evidence.json``.
        tested: Predictions of the test images.
        space: The search space; without it no value is at an end of its range.
        searched: What the trials came to; without it nothing is said about the search.

    Returns:
        The findings, the most severe first; ``docs/evidence.md`` lists the codes.
    """
    found = [
        *_of_validation(results),
        *_of_comparisons(results, tested),
        *of_parts(evidence, len(tested.labels), results.groups),
        *_of_confidence(results, tested),
        *_of_amount(results, tested),
        *_of_classes(results, evidence, tested),
        *_of_ranges(results, space),
        *of_search(searched or Searched()),
    ]
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


# --- comparison with simpler models -------------------------------------------------------


def _of_validation(results: Results) -> Iterator[Finding]:
    name = metric_of(results.metric).name
    scores = validated(results)
    own = scores["winner"]
    for model, theirs in scores.items():
        if model == "winner" or not is_ahead(results.metric, theirs, own):
            continue
        numbers = {"metric": results.metric, "winner": own[name].mean, model: theirs[name].mean}
        if "nll" in theirs and "nll" in own:
            numbers |= {"winner_nll": own["nll"].mean, f"{model}_nll": theirs["nll"].mean}
        yield Finding(
            f"{model}_ahead_on_validation", "severe", numbers, sentence_of_ahead(results, model)
        )


def _of_comparisons(results: Results, tested: Tested) -> Iterator[Finding]:
    for each in verdicts(results):
        numbers = _numbers(each.difference) | {"validation": each.validation}
        title = TITLES[each.other]
        if each.difference.interval.high < 0:
            yield Finding(f"winner_below_{each.other}", "severe", numbers, each.sentence)
        elif each.kind == "disagree":
            yield Finding(f"disagrees_with_{each.other}", "warning", numbers, each.sentence)
        elif each.kind == "open":
            yield Finding(f"not_above_{each.other}", "note", numbers, _not_shown(each, title))
    if results.control is None:
        yield Finding(
            "no_control",
            "note",
            {},
            "There is no control, so this run does not show whether the shared features help: "
            "search.control was off, the winner is a plain head itself, or the control failed.",
        )
    if tested.control is None or tested.probe is None:
        return
    below = difference(_correct(tested.control, tested), _correct(tested.probe, tested))
    if below.interval.high < 0:
        yield Finding(
            "control_below_probe",
            "warning",
            _numbers(below),
            f"The control is worse than the linear probe on the test images, by "
            f"{_points(-below.mean)} points ({_points(-below.interval.high)} to "
            f"{_points(-below.interval.low)}): it was trained badly, so a winner that beats it "
            "shows little.",
        )


def _not_shown(verdict: Verdict, title: str) -> str:
    interval = verdict.difference.interval
    return (
        f"The winner is not shown to be better than the {title}: the interval of their difference, "
        f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f} points, contains 0. More test "
        "images and seeds, not more trials, would narrow it."
    )


# --- confidence ---------------------------------------------------------------------------


def _of_confidence(results: Results, tested: Tested) -> Iterator[Finding]:
    """Checks the logits as bundles give them: each model's divided by its own temperature."""
    winner = _deployed(tested.winner, results.winner.calibration)
    own = _nll(winner, tested.labels)
    yield from _of_temperature(results.winner.calibration, own, tested)
    yield from _of_order(winner, tested.labels)
    if tested.probe is None:
        return
    probe = _deployed(tested.probe, results.probe.calibration if results.probe else None)
    (theirs,) = _nll(probe[None], tested.labels)
    nll = difference(own, theirs, metric="test/nll")
    if nll.interval.low > 0:
        yield Finding(
            "nll_worse_than_probe",
            "warning",
            _numbers(nll),
            "The winner's probabilities are worse than the linear probe's, each with its own "
            f"temperature: NLL higher by {nll.mean:.3f} ({nll.interval.low:.3f} to "
            f"{nll.interval.high:.3f}).",
        )
    gap, error = _ece_gap(winner, probe, tested.labels)
    if gap - 1.96 * error > 0:
        yield Finding(
            "ece_worse_than_probe",
            "warning",
            {"mean": gap, "low": gap - 1.96 * error, "high": gap + 1.96 * error},
            "The winner's confidence is further from its accuracy than the linear probe's, each "
            f"with its own temperature: ECE higher by {gap:.3f} ({gap - 1.96 * error:.3f} to "
            f"{gap + 1.96 * error:.3f}).",
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
            "warning",
            _numbers(worse) | {"temperature": calibration.temperature},
            f"The winner's temperature, {calibration.temperature:.3g}, does not carry over from "
            f"the validation images to the test images: NLL is higher with it, by "
            f"{worse.mean:.3f} ({worse.interval.low:.3f} to {worse.interval.high:.3f}).",
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
            f"Confidence does not tell right from wrong: the surer half of the answers is wrong in "
            f"{100 * sure.mean():.1f} %, the other half in {100 * unsure.mean():.1f} %. No "
            "threshold (predict --threshold) helps.",
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


# --- amounts, classes, ranges -------------------------------------------------------------


def _of_amount(results: Results, tested: Tested) -> Iterator[Finding]:
    if len(results.winner.seeds) == 1:
        yield Finding(
            "one_seed",
            "warning",
            {"seeds": 1},
            "One seed only: it is unknown how much another training would differ, and no interval "
            "here includes it.",
        )
    images = len(tested.labels)
    if images < FEW_IMAGES:
        interval = results.winner.interval
        known = (
            f": the winner's accuracy lies between {100 * interval.low:.1f} and "
            f"{100 * interval.high:.1f} %"
            if interval
            else ""
        )
        yield Finding(
            "few_images",
            "warning",
            {"images": images, "limit": FEW_IMAGES},
            f"Only {images} test images{known}.",
        )
    chosen = results.winner.validation.get("accuracy")
    interval = results.winner.interval
    if chosen and interval and chosen.mean > interval.high + 0.02:
        yield Finding(
            "validation_above_test",
            "warning",
            {"validation": chosen.mean, "test": results.winner.test["accuracy"].mean},
            f"Validation accuracy ({100 * chosen.mean:.1f} %) is clearly above test accuracy "
            f"({100 * results.winner.test['accuracy'].mean:.1f} %): the test images are harder, or "
            "the search has fitted the validation images.",
        )


def _of_classes(results: Results, evidence: Mapping[str, Any], tested: Tested) -> Iterator[Finding]:
    accuracy = evidence.get("per_class_accuracy") or {}
    counts = np.bincount(tested.labels, minlength=len(accuracy))
    mean = results.winner.test["accuracy"].mean
    far = [
        name
        for (name, share), count in zip(accuracy.items(), counts.tolist(), strict=False)
        if share is not None and count >= 5 and _upper(share, count) < mean / 2
    ]
    if far:
        shown = ", ".join(far[:5]) + (f" and {len(far) - 5} more" if len(far) > 5 else "")
        yield Finding(
            "classes_far_below",
            "warning",
            {"classes": far, "mean": mean},
            f"{len(far)} class{'es have' if len(far) > 1 else ' has'} less than half of the mean "
            f"accuracy: {shown}. Check for wrong labels and for two names of one class.",
        )


def _upper(share: float, count: int) -> float:
    """Returns the upper end of Wilson's 95 % interval."""
    z = 1.96
    centre = share + z**2 / (2 * count)
    root = math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (centre + z * root) / (1 + z**2 / count)


def _of_ranges(results: Results, space: Space | None) -> Iterator[Finding]:
    known = {each.name: each.distribution for each in space.parameters} if space else {}
    for name, value in results.winner.params.items():
        end = range_end(name, known[name], value) if name in known else ""
        # The data sets this bound: at most half as many groups as classes.
        bounded = name == "model.groups.count" and 2 * (value + 1) > len(results.groups) > 0
        if end and not (bounded and end == "upper"):
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            yield Finding(
                "range_end",
                "note",
                {"parameter": name, "value": value, "end": end},
                f"{name} = {shown} lies at the {end} end of its range "
                f"({known[name].describe()}): better values may lie outside.",
            )


# --- small parts --------------------------------------------------------------------------


def _correct(logits: Logits, tested: Tested) -> NDArray[np.bool_]:
    return np.asarray(logits.argmax(axis=-1) == tested.labels)


def _deployed(logits: Logits, calibration: Calibration | None) -> Logits:
    temperature = 1.0 if calibration is None else calibration.temperature
    return np.asarray(logits, dtype=np.float64) / temperature


def _nll(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes NLL (seeds, N), nats per image, of logits (seeds, N, C)."""
    found = log_probabilities(np.asarray(logits, dtype=np.float64), 1.0)
    return np.asarray(-found[:, np.arange(len(labels)), labels])


def _numbers(found: Difference) -> dict[str, Any]:
    return {"mean": found.mean, "low": found.interval.low, "high": found.interval.high}


def _points(value: float) -> str:
    return f"{100 * value:.1f}"
