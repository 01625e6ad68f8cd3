"""Checks of the results for problems; each problem found becomes a finding with its numbers.

A finding that something is worse rests on a paired test. If that covers one training each, the
finding is less severe and says so. A finding that something is not shown contains the interval or
the one-sided bound at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.findings_of_confidence import of_confidence
from gsfl_tune.evidence.findings_of_errors import of_errors
from gsfl_tune.evidence.findings_of_parts import of_parts
from gsfl_tune.evidence.findings_of_search import Searched, of_search
from gsfl_tune.evidence.interval import difference
from gsfl_tune.evidence.tested import (
    SEVERITIES,
    Logits,
    Tested,
    aside,
    lowered,
    numbers_of,
    wilson_upper,
)
from gsfl_tune.experiment.edges import range_end
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.experiment.space import Space
from gsfl_tune.run.results import Finding, Outcome, Results
from gsfl_tune.run.verdict import (
    TITLES,
    Verdict,
    is_ahead,
    points,
    sentence_of_ahead,
    validated,
    verdicts,
)

FEW_IMAGES = 200
# A share of images: by less than this, validation above test changes nothing.
_CLEARLY = 0.02


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
        *of_confidence(results, tested),
        *_of_amount(results, tested),
        *of_errors(results, evidence, tested),
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
        numbers = numbers_of(each.difference) | {"validation": each.validation}
        title = TITLES[each.other]
        if each.difference.interval.high < 0:
            severity = lowered("severe", each.difference.interval.covers_seeds)
            yield Finding(f"winner_below_{each.other}", severity, numbers, each.sentence)
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
        covered = below.interval.covers_seeds
        reason = "it is a weak rival, so" if covered else "if other trainings of it are worse, too,"
        yield Finding(
            "control_below_probe",
            lowered("warning", covered),
            numbers_of(below),
            f"The control is worse than the linear probe on the test images, by "
            f"{_points(-below.mean)} points ({_points(-below.interval.high)} to "
            f"{_points(-below.interval.low)}): {reason} a winner that beats it shows little."
            f"{aside(covered)}",
        )


def _not_shown(verdict: Verdict, title: str) -> str:
    interval = verdict.difference.interval
    return (
        f"The winner is not shown to be better than the {title}: the interval of their difference, "
        f"{points(interval.low)} to {points(interval.high)} points, contains 0. More test images "
        "and seeds, not more trials, would narrow it."
    )


# --- amounts, ranges ----------------------------------------------------------------------


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
            f": the {100 * interval.level:.0f} % interval of the winner's accuracy is "
            f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
            if interval
            else ""
        )
        yield Finding(
            "few_images",
            "warning",
            {"images": images, "limit": FEW_IMAGES},
            f"Only {images} test images{known}.",
        )
    yield from _of_validation_above_test(results.winner)


def _of_validation_above_test(winner: Outcome) -> Iterator[Finding]:
    chosen, interval = winner.validation.get("accuracy"), winner.interval
    if not chosen or not interval:
        return
    test = winner.test["accuracy"].mean
    # Few validation images may lie above by chance, too. Runs of earlier versions do not tell how
    # many there were.
    count = winner.calibration.images if winner.calibration else 0
    # The lower end of Wilson's interval, as the upper one of the errors.
    above = wilson_upper(1 - chosen.mean, count) - (1 - chosen.mean) if count else 0.0
    needed = math.hypot(interval.high - test, above) + _CLEARLY
    if chosen.mean - test > needed:
        yield Finding(
            "validation_above_test",
            lowered("warning", interval.covers_seeds),
            {"validation": chosen.mean, "test": test, "needed": needed},
            f"Validation accuracy ({100 * chosen.mean:.1f} %) is clearly above test accuracy "
            f"({100 * test:.1f} %): the test images are harder, or the search has fitted the "
            f"validation images.{aside(interval.covers_seeds)}",
        )


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


def _points(value: float) -> str:
    """Formats an amount in points; what is not 0 is not shown as 0."""
    return points(value).removeprefix("+")
