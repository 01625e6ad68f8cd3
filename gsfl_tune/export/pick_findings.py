"""What must be known of a picked trial: what the run has found that still holds, and rivals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gsfl_tune.run.results import Finding, Outcome, Results
from gsfl_tune.run.verdict import TITLES, best_on_validation, is_ahead, validated, words_of_ahead

_AHEAD = "_ahead_on_validation"
_SEVERITIES = ("severe", "warning", "note")
# Of the search and of the images, whichever trial is chosen in the end. The others are about the
# run's winner.
_STILL_HOLD = (
    "many_failed",
    "rungs_do_not_agree",
    "still_improving",
    "best_from_the_start",
    "curves_fall_again",
    "curves_still_rise",
    "curves_cross_late",
    "small_front",
    "parameters_explain_nothing",
    "one_learning_rate",
    "no_slope",
    "slots_idle",
    "no_control",
)


def findings_of_pick(results: Results, picked: Outcome) -> list[Finding]:
    """Returns the findings about a picked trial, the most severe first.

    Args:
        results: Results of its run.
        picked: The trial, validated and tested.
    """
    found = [*_ahead(results, picked), _one_seed(picked), *_kept(results, picked.params)]
    return sorted(found, key=lambda each: _SEVERITIES.index(each.severity))


def told_ahead(findings: Iterable[Finding]) -> list[str]:
    """Returns the sentences on models that are better on validation."""
    return [each.sentence for each in findings if each.code.endswith(_AHEAD)]


def _ahead(results: Results, picked: Outcome) -> list[Finding]:
    """Says which simpler models are better on validation, the best of them first."""
    best = best_on_validation(results)
    found = []
    for model, theirs in validated(results).items():
        if model == "winner" or not is_ahead(results.metric, theirs, picked.validation):
            continue
        words = words_of_ahead(
            results.metric, TITLES[model], theirs, "picked trial", picked.validation
        )
        where = ": its bundle is in best-simple/ of the run" if model == best else ""
        common = theirs.keys() & picked.validation.keys() & {"accuracy", "nll"}
        numbers = {f"{model}_{name}": theirs[name].mean for name in sorted(common)}
        numbers |= {f"picked_{name}": picked.validation[name].mean for name in sorted(common)}
        found.append(Finding(f"{model}{_AHEAD}", "severe", numbers, f"{words}{where}."))
    return sorted(found, key=lambda each: each.code != f"{best}{_AHEAD}")


def _one_seed(picked: Outcome) -> Finding:
    return Finding(
        "one_seed",
        "warning",
        {"seeds": len(picked.seeds)},
        "One seed only: it is unknown how much another training of the picked trial would differ.",
    )


def _kept(results: Results, params: dict[str, Any]) -> Iterator[Finding]:
    for each in results.findings or ():
        if each.code in _STILL_HOLD:
            yield each
        elif each.code == "few_images":
            # Its sentence goes on with the interval of the winner.
            yield Finding(
                each.code,
                each.severity,
                each.numbers,
                f"Only {each.numbers['images']} test images.",
            )
        elif each.code == "range_end":
            name = each.numbers["parameter"]
            if name in params and params[name] == each.numbers["value"]:
                yield each
