"""With one seed a comparison covers images alone: its finding is less severe and says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsfl_tune.evidence import Tested, find
from gsfl_tune.evidence.findings import SEVERITIES
from gsfl_tune.run.results import Finding, Results

from .test_findings import GOOD, SPACE, results, validated, with_temperatures, world


def winner_below_both(tested: Tested) -> Results:
    """Validation agrees: the verdict then says no more than the interval covers."""
    return validated(results(tested), winner=0.6, control=0.8, probe=0.75)


# A world and its results, in which the code holds with three seeds and with one.
WORSE = {
    "winner_below_probe": ({"winner": 0.6}, winner_below_both),
    "winner_below_control": ({"winner": 0.6}, winner_below_both),
    "control_below_probe": ({"control": 0.6}, results),
    "nll_worse_than_probe": ({"winner": 0.72, "sure": 60.0}, results),
    "ece_worse_than_probe": ({"winner": 0.72, "sure": 60.0}, results),
    "overconfident": ({"winner": 0.72, "sure": 60.0}, results),
    "temperature_does_not_carry_over": ({}, lambda tested: with_temperatures(tested, 0.2)),
    "validation_above_test": ({}, lambda tested: validated(results(tested), winner=0.97)),
}


def found(code: str, seeds: int) -> Finding:
    changes, made = WORSE[code]
    tested = world(**changes, seeds=seeds)
    listed = find(made(tested), GOOD, tested, space=SPACE)
    return next(each for each in listed if each.code == code)


@pytest.mark.parametrize("code", WORSE)
def test_one_seed_is_one_step_less_severe_and_is_not_settled(code):
    several, once = found(code, seeds=3), found(code, seeds=1)
    assert SEVERITIES.index(once.severity) == SEVERITIES.index(several.severity) + 1
    assert "one seed" in once.sentence
    assert "not settled" in once.sentence
    assert "settled" not in several.sentence
    assert "one seed" not in several.sentence


def test_a_control_below_the_probe_is_not_called_a_weak_rival_after_one_training():
    assert "it is a weak rival, so a winner" in found("control_below_probe", 3).sentence
    assert (
        "if other trainings of it are worse, too, a winner"
        in found("control_below_probe", 1).sentence
    )


def test_nothing_that_one_seed_cannot_show_is_severe():
    tested = world(winner=0.6, control=0.6, seeds=1, sure=60.0)
    listed = find(winner_below_both(tested), GOOD, tested, space=SPACE)
    codes = {each.code for each in listed if each.severity == "severe"}
    # Which model is better on the validation images is no estimate.
    assert codes == {"control_ahead_on_validation", "probe_ahead_on_validation"}


def test_the_page_marks_the_findings_that_are_less_severe_with_one_seed():
    page = (Path(__file__).parents[2] / "docs/evidence.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| (?:severe|warning|note) ¹ \|", page, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)} == set(WORSE)
