"""What a user is told of a picked trial: what still holds, and which simpler model is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.export.pick_findings import findings_of_pick, told_ahead
from gsfl_tune.run.results import Finding, Probe
from tests.report.conftest import make_results, scores


def _codes(**changes):
    results = make_results(metric="validation/accuracy", **changes)
    picked = replace(results.winner, validation=scores(0.75, nll=0.5), seeds=[1])
    return [each.code for each in findings_of_pick(results, picked)]


@pytest.mark.parametrize(
    ("control", "probe", "codes"),
    [
        (0.70, 0.74, []),
        (0.78, 0.74, ["control_ahead_on_validation"]),
        (0.70, 0.77, ["probe_ahead_on_validation"]),
        # The best of them first.
        (0.78, 0.90, ["probe_ahead_on_validation", "control_ahead_on_validation"]),
        (0.90, 0.78, ["control_ahead_on_validation", "probe_ahead_on_validation"]),
    ],
)
def test_simpler_models_that_are_better_on_validation_come_first(control, probe, codes):
    rival = replace(make_results().control, validation=scores(control, nll=0.9))
    found = _codes(control=rival, probe=Probe(scores(0.6), None, scores(probe, nll=0.9)))
    assert found == [*codes, "one_seed"]


def test_the_sentence_names_the_numbers_and_where_the_better_bundle_is():
    # The probe is better than the run's winner, too: its bundle was written.
    results = make_results(
        metric="validation/accuracy",
        control=None,
        difference=None,
        probe=Probe(scores(0.6), None, scores(0.9, nll=0.9)),
    )
    picked = replace(results.winner, validation=scores(0.75, nll=0.5))
    (sentence,) = told_ahead(findings_of_pick(results, picked))
    assert sentence == (
        "The linear probe is better than the picked trial on the validation images (90.0 % against "
        "75.0 %): its bundle is in best-simple/ of the run."
    )
    # As good as the winner, better than the pick: it has no bundle.
    results = replace(results, probe=Probe(scores(0.6), None, scores(0.78, nll=0.9)))
    (sentence,) = told_ahead(findings_of_pick(results, picked))
    assert sentence.endswith("(78.0 % against 75.0 %).")


def test_what_was_found_of_the_search_and_the_images_holds_and_what_is_the_winners_does_not():
    value = make_results().winner.params["loss.shared_center"]
    found = _codes(
        control=None,
        difference=None,
        probe=None,
        findings=[
            Finding("shared_collapsed", "severe", {}, "The shared part has collapsed."),
            Finding("many_failed", "warning", {"failed": 4}, "4 of 10 trials failed."),
            Finding("overconfident", "warning", {}, "It is too sure."),
            Finding("few_images", "warning", {"images": 12}, "Only 12: the winner lies between."),
            Finding("range_end", "note", {"parameter": "loss.shared_center", "value": value}, "1"),
            Finding("range_end", "note", {"parameter": "model.dropout", "value": 0.7}, "2"),
            Finding("still_improving", "note", {}, "More trials may find better ones."),
        ],
    )
    warnings = ["one_seed", "many_failed", "few_images"]
    assert found == [*warnings, "range_end", "still_improving"]


def test_a_run_of_an_older_version_has_no_findings_to_keep():
    assert _codes(control=None, difference=None, probe=None, findings=None) == ["one_seed"]
