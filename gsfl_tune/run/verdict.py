"""What the results of a run show about its winner, in the same words everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gsfl_tune.experiment.metrics import VALIDATION, metric_of
from gsfl_tune.run.results import Difference, Results, Score

Model = Literal["winner", "control", "probe"]
Kind = Literal["better", "worse", "open", "disagree", "once"]

# In percentage points: what one decimal shows as 0, and the rounding of sums of equal numbers.
_ROUNDED, _NOTHING = 0.05, 1e-4
# Values are level if they agree to nine digits.
_MOST_DIGITS = 10

TITLES: dict[Model, str] = {"winner": "winner", "control": "control", "probe": "linear probe"}


@dataclass(frozen=True)
class Verdict:
    """Compares the winner with another model.

    Attributes:
        other: The other model.
        kind: ``better`` or ``worse`` if the interval on the test images and validation agree, and
            the interval covers seeds; ``once`` if it covers these trainings alone; ``disagree``
            if the interval excludes 0 but validation does not agree; ``open`` if the interval
            contains 0.
        difference: Winner minus other on the test images.
        validation: Winner minus other, accuracy on the validation images; None if one of them was
            not validated.
        sentence: The comparison as a sentence.
    """

    other: Model
    kind: Kind
    difference: Difference
    validation: float | None
    sentence: str


def verdicts(results: Results) -> list[Verdict]:
    """Compares the winner with its control and the linear probe, where they were trained."""
    found: list[Verdict] = []
    if results.control is not None and results.difference is not None:
        found.append(_verdict(results, "control", results.difference, results.control.validation))
    if results.probe is not None and results.probe.difference is not None:
        probe = results.probe
        found.append(_verdict(results, "probe", results.probe.difference, probe.validation))
    return found


def validated(results: Results) -> dict[Model, Mapping[str, Score]]:
    """Returns the validation metrics of every model that was retrained and has them."""
    found: dict[Model, Mapping[str, Score]] = {"winner": results.winner.validation}
    if results.control is not None and results.control.validation:
        found["control"] = results.control.validation
    if results.probe is not None and results.probe.validation:
        found["probe"] = results.probe.validation
    return found


def is_ahead(metric: str, other: Mapping[str, Score], own: Mapping[str, Score]) -> bool:
    """Returns whether another model is better on validation, by the metric and then by NLL.

    Args:
        metric: Of the search, such as ``validation/accuracy``.
        other: Validation metrics of the other model.
        own: The same of the model compared with. A metric that one of them lacks is left out.
    """
    by = _told_apart_by(metric, other, own)
    if by is None:
        return False
    sign = metric_of(f"{VALIDATION}/{by}").sign
    return sign * other[by].mean > sign * own[by].mean


def _told_apart_by(metric: str, one: Mapping[str, Score], other: Mapping[str, Score]) -> str | None:
    """Returns the metric in which two models differ: the search's, else NLL; None if none."""
    name = metric_of(metric).name
    if name not in one or name not in other:
        return None
    for by in (name, "nll"):
        # Means of a few seeds: values that differ only in their last bits are equal.
        if by in one and by in other and round(one[by].mean, 9) != round(other[by].mean, 9):
            return by
    return None


def best_on_validation(results: Results) -> Model:
    """Returns the model that is best on validation; the winner stays first in a tie."""
    scores = validated(results)
    best: Model = "winner"
    for model, theirs in scores.items():
        if is_ahead(results.metric, theirs, scores[best]):
            best = model
    return best


def ahead(results: Results) -> str | None:
    """Returns the sentence for a report's top if a simpler model is better on validation."""
    best = best_on_validation(results)
    return None if best == "winner" else sentence_of_ahead(results, best)


def sentence_of_ahead(results: Results, other: Model) -> str:
    """Says that a model is better on validation, by which metric, and where its bundle is.

    Args:
        results: Results of a run.
        other: A model that is better.
    """
    scores = validated(results)
    said = words_of_ahead(
        results.metric, TITLES[other], scores[other], TITLES["winner"], scores["winner"]
    )
    if other == best_on_validation(results):
        return f"{said}: its bundle is in best-simple/."
    return f"{said}."


def words_of_ahead(
    metric: str, other: str, theirs: Mapping[str, Score], own: str, scores: Mapping[str, Score]
) -> str:
    """Says that a model is better on validation than another, and by which metric.

    Args:
        metric: Of the search.
        other: Title of the model that is better, see `is_ahead`.
        theirs: Its validation metrics.
        own: Title of the model compared with.
        scores: The validation metrics of that.

    Returns:
        A sentence without a full stop.
    """
    name = metric_of(metric).name
    if _told_apart_by(metric, theirs, scores) == name:
        return (
            f"The {other} is better than the {own} on the validation images "
            f"({_against(name, theirs[name].mean, scores[name].mean)})"
        )
    return (
        f"The {other} and the {own} are level in {name.replace('_', ' ')} and the "
        f"{other} has the better NLL on the validation images "
        f"({_against('nll', theirs['nll'].mean, scores['nll'].mean)})"
    )


def first_card(results: Results) -> list[str]:
    """Returns the comparisons that no finding states, for places that also list findings."""
    told = {finding.sentence for finding in results.findings or ()}
    return [each.sentence for each in verdicts(results) if each.sentence not in told]


def _verdict(
    results: Results, other: Model, difference: Difference, validation: Mapping[str, Score]
) -> Verdict:
    title = TITLES[other]
    own = results.winner.validation.get("accuracy")
    theirs = validation.get("accuracy")
    gap = own.mean - theirs.mean if own is not None and theirs is not None else None
    interval = difference.interval
    words = (
        f"Winner minus {title} on the test images: {points(difference.mean)} points, "
        f"{100 * interval.level:.0f} % interval {points(interval.low)} to "
        f"{points(interval.high)} ({interval.method})"
    )
    # With one training each, the interval covers only the images. Of the same configuration trained
    # twice on real features it then excludes 0 in up to 40 % of the cases
    # (benchmarks/results/coverage.md).
    once = len(results.winner.seeds) == 1
    # The winner was the best of many there, so this says less than the test images do.
    chosen = "where the winner was chosen"
    aside = "" if gap is None else f"; on validation, {chosen}, {points(gap)} points"
    kind: Kind = "open"
    if interval.contains_zero:
        said = "no difference is shown"
    else:
        better = difference.mean > 0
        word = "better" if better else "worse"
        agrees = gap is not None and (gap > 0) == better and abs(gap) > 1e-9
        if agrees and once:
            kind = "once"
            said = (
                f"with this one seed the winner is {word} than the {title}; whether another "
                "training is, too, is not known: not settled"
            )
        elif agrees and not interval.covers_seeds:
            # Of an earlier version, or the other model was trained once.
            kind = "once"
            said = (
                f"these trainings of the winner are {word} than the {title}, but the interval does "
                "not cover what other seeds would change: not settled"
            )
        elif agrees:
            kind = "better" if better else "worse"
            said = f"the winner is {word} than the {title}"
        else:
            kind = "disagree"
            if gap is None:
                reason = f"how the {title} did on validation is not known"
            elif abs(gap) <= 1e-9:
                reason = "they are level on validation"
            else:
                reason = f"validation says that the {title} is {'better' if better else 'worse'}"
            seed = "with this one seed " if once else ""
            said = f"{seed}the test images say that the winner is {word}, but {reason}: not settled"
    return Verdict(other, kind, difference, gap, f"{words}{aside}; {said}.")


def points(value: float) -> str:
    """Formats a difference of shares in percentage points; only what is 0 is shown as 0.

    The end of an interval that excludes 0 must not read as 0.
    """
    number = 100 * value
    if abs(number) < _NOTHING:
        return "+0.0"
    return f"{number:+.1f}" if abs(number) >= _ROUNDED else f"{number:+.1g}"


def _against(name: str, one: float, other: float) -> str:
    """Formats two different values of a metric with as many digits as tell them apart."""
    share = metric_of(f"{VALIDATION}/{name}").is_share
    # NLL is named by the sentence.
    before = "" if share or name == "nll" else f"{name.upper()} "
    for digits in range(1 if share else 3, _MOST_DIGITS):
        texts = [
            f"{100 * each:.{digits}f} %" if share else f"{before}{each:.{digits}f}"
            for each in (one, other)
        ]
        if texts[0] != texts[1]:
            break
    return " against ".join(texts)
