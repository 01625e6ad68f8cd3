"""Findings about wrong and sure answers: they hold where they should, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsfl_tune.evidence import Tested, find

from .test_findings import CLASSES, GOOD, SPACE, codes, results, with_temperatures, world


def answered(tested: Tested, said: np.ndarray) -> Tested:
    """The winner with these answers (N,), as sure of them as it was."""
    height = tested.winner.max(axis=-1)
    table = np.zeros_like(tested.winner)
    table[:, np.arange(len(said)), said] = height
    return replace(tested, winner=table)


def test_one_class_that_most_wrong_answers_name():
    tested = world()
    wrong = tested.winner[0].argmax(-1) != tested.labels
    attracted = answered(tested, np.where(wrong, 3, tested.labels))
    listed = find(results(attracted), GOOD, attracted, space=SPACE)
    found = next(each for each in listed if each.code == "one_class_attracts_errors")
    assert found.severity == "warning"
    assert found.numbers["class"] == "class 3"
    assert found.numbers["share"] == 1.0
    assert found.numbers["sources"] == CLASSES - 1
    assert "100 % of the wrong answers name one class, class 3" in found.sentence
    # Half of them are less than "most", whatever the other half is.
    spread = np.where(np.arange(len(wrong)) % 4 < 2, 3, (tested.labels + 1) % CLASSES)
    half = answered(tested, np.where(wrong, spread, tested.labels))
    assert "one_class_attracts_errors" not in codes(half)


def test_a_confused_pair_and_a_few_errors_attract_nothing():
    tested = world()
    pair = answered(tested, np.where(tested.labels == 2, 3, tested.labels))
    assert "one_class_attracts_errors" not in codes(pair)
    few = np.where(np.arange(600) % 40 == 1, 3, tested.labels)
    assert 0 < (few != tested.labels).sum() < 20
    assert "one_class_attracts_errors" not in codes(answered(tested, few))


def test_most_answers_are_wrong():
    assert "mostly_wrong" in codes(world(winner=0.3, control=0.2, probe=0.1))
    # Right on 49.1 %, but the interval reaches above a half.
    assert "mostly_wrong" not in codes(world(winner=0.52))


def test_sure_and_wrong():
    tested = world(sure=60.0)
    found = next(e for e in find(results(tested), GOOD, tested) if e.code == "overconfident")
    right = (tested.winner.argmax(-1) == tested.labels).mean()
    assert found.severity == "warning"
    assert found.numbers["confidence"] == pytest.approx(1.0)
    assert found.numbers["accuracy"] == pytest.approx(right)
    assert found.numbers["least"] < 1 - right
    # As far below in few answers, or by a little in many: neither is shown to be far.
    assert "overconfident" not in codes(world(sure=60.0, images=40))
    assert "overconfident" not in codes(world(sure=60.0, winner=0.94))


def test_what_the_temperature_mends_is_not_called_sure():
    tested = world(sure=60.0)
    mended = find(with_temperatures(tested, winner=15.0), GOOD, tested, space=SPACE)
    assert "overconfident" not in [each.code for each in mended]
