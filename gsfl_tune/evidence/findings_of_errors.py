"""Findings about wrong answers: most of them, classes far below, one class that takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gsfl_tune.evidence.confusions import attraction, confusion_matrix
from gsfl_tune.evidence.tested import Tested, wilson_upper
from gsfl_tune.run.results import Finding, Results


def of_errors(results: Results, evidence: Mapping[str, Any], tested: Tested) -> Iterator[Finding]:
    """Finds problems in the winner's wrong answers to the test images."""
    interval = results.winner.interval
    # Where half of the answers are wrong, an answer alone is no reason to act.
    if interval and interval.high < 0.5:
        accuracy = results.winner.test["accuracy"].mean
        yield Finding(
            "mostly_wrong",
            "warning",
            {"accuracy": accuracy, "low": interval.low, "high": interval.high},
            f"Most answers are wrong: the winner is right on {100 * accuracy:.1f} % of the test "
            f"images ({100 * interval.low:.1f} to {100 * interval.high:.1f}).",
        )
    yield from _of_classes(results, evidence, tested)
    yield from _of_one_class(results, evidence, tested)


def _of_classes(results: Results, evidence: Mapping[str, Any], tested: Tested) -> Iterator[Finding]:
    accuracy = evidence.get("per_class_accuracy") or {}
    counts = np.bincount(tested.labels, minlength=len(accuracy))
    mean = results.winner.test["accuracy"].mean
    far = [
        name
        for (name, share), count in zip(accuracy.items(), counts.tolist(), strict=False)
        if share is not None and count >= 5 and wilson_upper(share, count) < mean / 2
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


def _of_one_class(
    results: Results, evidence: Mapping[str, Any], tested: Tested
) -> Iterator[Finding]:
    count = tested.winner.shape[-1]
    guesses = tested.winner.argmax(axis=-1)
    matrix = np.sum([confusion_matrix(each, tested.labels, count) for each in guesses], axis=0)
    # An image that every seed gets wrong counts as one error.
    found = attraction(matrix, answers=len(guesses))
    if found is None:
        return
    # In `evidence.json` classes are listed by number.
    names = list(evidence.get("per_class_accuracy") or {})
    name = names[found.target] if found.target < len(names) else f"class {found.target}"
    yield Finding(
        "one_class_attracts_errors",
        "warning",
        {"class": name, "share": found.share, "least": found.least, "sources": found.sources},
        found.sentence(name),
    )
