"""What may be said of a winner: where test images and validation agree, and else not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.run.results import (
    IMAGES_ALONE,
    SEEDS_AND_IMAGES,
    Difference,
    Interval,
    Probe,
    Results,
    Score,
)
from gsfl_tune.run.verdict import ahead, best_on_validation, verdicts, words_of_ahead
from tests.report.conftest import make_results, scores


def compared(mean: float, low: float, high: float, *, winner: float, control: float) -> Results:
    results = make_results(metric="validation/accuracy", probe=None)
    assert results.control is not None
    return replace(
        results,
        winner=replace(results.winner, validation=scores(winner)),
        control=replace(results.control, validation=scores(control)),
        difference=Difference(mean, Interval(low, high, method=SEEDS_AND_IMAGES)),
    )


@pytest.mark.parametrize(
    ("mean", "low", "high", "winner", "control", "kind", "words"),
    [
        (0.1, 0.05, 0.15, 0.8, 0.7, "better", "the winner is better than the control"),
        (-0.1, -0.15, -0.05, 0.7, 0.8, "worse", "the winner is worse than the control"),
        (0.1, -0.05, 0.25, 0.8, 0.7, "open", "no difference is shown"),
        (0.037, 0.002, 0.074, 0.7, 0.8, "disagree", "validation says that the control is better"),
        (0.037, 0.002, 0.074, 0.8, 0.8, "disagree", "they are level on validation"),
        (-0.1, -0.15, -0.05, 0.8, 0.7, "disagree", "validation says that the control is worse"),
    ],
)
def test_better_needs_both_to_agree(mean, low, high, winner, control, kind, words):
    """+3.7 points (+0.2 to +7.4) with the control ahead on validation was "better"."""
    (found,) = verdicts(compared(mean, low, high, winner=winner, control=control))
    assert found.kind == kind
    assert words in found.sentence
    assert ("not settled" in found.sentence) == (kind == "disagree")


def test_of_one_seed_it_is_said_that_it_is_one():
    results = compared(0.1, 0.05, 0.15, winner=0.8, control=0.7)
    (several,) = verdicts(results)
    assert several.sentence.endswith("; the winner is better than the control.")
    (single,) = verdicts(replace(results, winner=replace(results.winner, seeds=[1])))
    assert single.kind == "once"
    assert "; with this one seed the winner is better than the control; " in single.sentence
    assert single.sentence.endswith("not known: not settled.")


@pytest.mark.parametrize("method", [IMAGES_ALONE, "paired bootstrap over test images"])
def test_an_interval_over_images_alone_settles_nothing_however_many_seeds_the_winner_has(method):
    """Those of earlier versions exclude 0 in a third of the cases of equal models."""
    results = compared(0.1, 0.05, 0.15, winner=0.8, control=0.7)
    assert len(results.winner.seeds) == 3
    interval = Interval(0.05, 0.15, method=method)
    (found,) = verdicts(replace(results, difference=Difference(0.1, interval)))
    assert found.kind == "once"
    assert (
        "the interval does not cover what other seeds would change: not settled." in found.sentence
    )
    assert "winner is better" not in found.sentence


def test_a_probe_of_an_older_version_that_was_not_validated_settles_nothing():
    results = make_results(probe=Probe(scores(0.65), Difference(0.07, Interval(0.02, 0.12))))
    found = verdicts(results)[-1]
    assert (found.other, found.kind, found.validation) == ("probe", "disagree", None)
    assert "is not known" in found.sentence


def test_the_best_on_validation_may_be_any_of_the_three():
    results = compared(0.0, -0.1, 0.1, winner=0.8, control=0.7)
    assert (best_on_validation(results), ahead(results)) == ("winner", None)
    simple = replace(results, probe=Probe(scores(0.7), None, scores(0.9)))
    assert best_on_validation(simple) == "probe"
    assert "best-simple/" in str(ahead(simple))
    assert best_on_validation(compared(0, -1, 1, winner=0.7, control=0.8)) == "control"


def test_level_in_the_metric_nll_decides_and_level_in_both_the_winner_stays():
    results = compared(0.0, -0.1, 0.1, winner=0.8, control=0.8)
    assert best_on_validation(results) == "winner"
    own = {"accuracy": Score.of([0.8]), "nll": Score.of([0.9])}
    better = {"accuracy": Score.of([0.8]), "nll": Score.of([0.6])}
    assert results.control is not None
    results = replace(
        results,
        winner=replace(results.winner, validation=own),
        control=replace(results.control, validation=better),
    )
    assert best_on_validation(results) == "control"
    assert "better NLL" in str(ahead(results))


def test_nll_that_one_of_them_lacks_decides_nothing():
    results = compared(0.0, -0.1, 0.1, winner=0.8, control=0.8)
    with_nll = {"accuracy": Score.of([0.8]), "nll": Score.of([0.6])}
    without = {"accuracy": Score.of([0.8])}
    assert results.control is not None
    for own, theirs in ((with_nll, without), (without, with_nll)):
        found = replace(
            results,
            winner=replace(results.winner, validation=own),
            control=replace(results.control, validation=theirs),
        )
        assert (best_on_validation(found), ahead(found)) == ("winner", None)


@pytest.mark.parametrize(
    ("name", "theirs", "own", "words"),
    [
        ("accuracy", 0.9, 0.8, "(90.0 % against 80.0 %)"),
        # One of 1,700 images and three seeds.
        ("accuracy", 0.90020, 0.90000, "(90.02 % against 90.00 %)"),
        ("nll", 0.6061, 0.6064, "(0.6061 against 0.6064)"),
    ],
)
def test_a_model_that_is_better_is_not_shown_with_equal_numbers(name, theirs, own, words):
    """ "90.0 % against 90.0 %" contradicts its own sentence."""
    better = {"accuracy": Score.of([0.8])} | {name: Score.of([theirs])}
    worse = {"accuracy": Score.of([0.8])} | {name: Score.of([own])}
    said = words_of_ahead("validation/accuracy", "control", better, "winner", worse)
    assert said.endswith(words)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.0002, 0.074, "+0.02 to +7.4"),
        (-0.00003, 0.074, "-0.003 to +7.4"),
        (0.0, 0.074, "+0.0 to +7.4"),
        (-1e-17, 0.074, "+0.0 to +7.4"),
    ],
)
def test_the_end_of_an_interval_is_0_only_where_it_is(low, high, shown):
    """ "+0.0 to +7.4: the winner is better" reads as an interval that contains 0."""
    (found,) = verdicts(compared(0.037, low, high, winner=0.8, control=0.7))
    assert f"95 % interval {shown} (" in found.sentence
    assert ("the winner is better" in found.sentence) == (low > 0)


def test_the_validation_images_chose_the_winner_and_the_sentence_says_so():
    """+5.0 points on validation beside -1.0 on test were read as evidence."""
    (found,) = verdicts(compared(-0.01, -0.056, 0.036, winner=0.85, control=0.8))
    assert "; on validation, where the winner was chosen, +5.0 points; no diff" in found.sentence
