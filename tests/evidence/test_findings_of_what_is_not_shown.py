"""What a test does not show is not said to be absent: such sentences carry the bound of chance."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gsfl_tune.evidence import find
from gsfl_tune.run.results import Calibration, Finding, Score

from .test_findings import CLASSES, GOOD, SPACE, results, validated, world


def probes(groups: float, random: float, images: int) -> dict[str, Any]:
    row = {"part": "s", "groups": {"mean": groups, "std": 0.01}}
    row["random_groups"] = {"mean": random, "std": 0.03}
    return {"probes": {"images": images, "chance": 0.4, "parts": [row]}}


def swap(**changes: Any) -> dict[str, Any]:
    known = {"class_follows_discriminative": 0.6, "chance_class": 0.3, "judge_accuracy": 0.8}
    return {"swap": GOOD["swap"] | {"pairs": 80} | known | changes}


def found(evidence: dict[str, Any], code: str) -> Finding:
    tested = world()
    listed = find(results(tested), GOOD | evidence, tested, space=SPACE)
    return next(each for each in listed if each.code == code)


# Above chance, by less than so few images or errors can tell.
ABOVE = {
    "shared_at_chance": (probes(0.48, 0.3, images=50), "48.0 %", "up to 51.4 % may"),
    "shared_as_random": (probes(0.9, 0.88, images=600), "90.0 % and 88.0 %", "up to 95.0 % may"),
    "swap_at_chance": (
        swap(group_follows_shared=0.45, chance_group=0.35),
        "45.0 % of the pairs",
        "up to 47.4 % may",
    ),
    "swap_class_at_chance": (
        swap(class_follows_discriminative=0.4),
        "40.0 % of the pairs",
        "up to 41.9 % may",
    ),
    "errors_inside_at_chance": (
        {"group_errors": {"inside": 0.018, "across": 0.022, "share_inside": 0.45,
                          "expected_inside": 0.3}},
        "45 % of the errors",
        "up to 45.4 % may",
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", ABOVE)
def test_what_is_above_chance_but_not_shown_to_be_is_not_called_absent(code):
    """45 % beside 30 % by chance, of 24 errors, was "the groups do not hold what looks alike"."""
    evidence, number, bound = ABOVE[code]
    sentence = found(evidence, code).sentence
    assert "not seen" in sentence
    assert number in sentence
    assert f"{bound} come by chance" in sentence
    assert not re.search(r"contains no|takes nothing|no better than|do not hold", sentence)


def test_a_bound_above_all_shares_is_told_as_all():
    evidence = probes(0.99, 0.97, images=600)
    assert "up to 100.0 % may" in found(evidence, "shared_as_random").sentence


def test_confidence_that_tells_a_little_is_not_said_to_tell_nothing():
    tested = world(images=200)
    place = np.arange(200)
    sure = place < 100
    wrong = (place % 100) < np.where(sure, 14, 20)
    said = np.where(wrong, (tested.labels + 1) % CLASSES, tested.labels)
    table = np.zeros((3, 200, CLASSES))
    table[:, place, said] = np.where(sure, 3.4, 3.0)
    tested = replace(tested, winner=table)
    listed = find(results(tested), GOOD, tested, space=SPACE)
    each = next(each for each in listed if each.code == "confidence_tells_nothing")
    assert "not seen to tell right from wrong" in each.sentence
    assert "is wrong in 14.0 %, the other half in 20.0 %" in each.sentence
    assert "up to 8.8 points between them may come by chance" in each.sentence


@pytest.mark.parametrize(
    ("images", "accuracy", "listed"), [(40, 0.93, False), (4000, 0.93, True), (12, 1.0, False)]
)
def test_few_validation_images_may_lie_above_the_test_images_by_chance(images, accuracy, listed):
    """93 or 100 of 100 where 85 of 100 are right on test: of so few images that is nothing."""
    tested = world()
    known = validated(results(tested), winner=accuracy)
    score = {name: Score.of([0.5]) for name in ("nll", "ece")}
    fitted = Calibration(1.0, images, 3, 20, score, score)
    known = replace(known, winner=replace(known.winner, calibration=fitted))
    codes = [each.code for each in find(known, GOOD, tested, space=SPACE)]
    assert ("validation_above_test" in codes) == listed


def test_an_interval_is_not_told_as_limits():
    tested = world(images=136)
    listed = find(results(tested), GOOD, tested, space=SPACE)
    (few,) = (each for each in listed if each.code == "few_images")
    assert re.fullmatch(
        r"Only 136 test images: the 95 % interval of the winner's accuracy is [\d.]+ to [\d.]+ %\.",
        few.sentence,
    )
