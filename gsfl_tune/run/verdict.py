"""What the results of a run allow to say of its winner, in the same words everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gsfl_tune.experiment.search_config import METRICS
from gsfl_tune.run.results import Difference, Results, Score

Model = Literal["winner", "control", "probe"]
Kind = Literal["better", "worse", "open", "disagree"]

TITLES: dict[Model, str] = {"winner": "winner", "control": "control", "probe": "linear probe"}


@dataclass(frozen=True)
class Verdict:
    """The winner beside another model.

    Attributes:
        other: The other model.
        kind: ``better`` or ``worse`` where the interval on the test images and the validation
            images agree; ``disagree`` where the interval excludes 0 and validation does not agree;
            ``open`` where the interval contains 0.
        difference: Winner minus other on the test images.
        validation: Winner minus other, accuracy on the validation images; None where one of them
            was not validated.
        sentence: All of it for a reader.
    """

    other: Model
    kind: Kind
    difference: Difference
    validation: float | None
    sentence: str


def verdicts(results: Results) -> list[Verdict]:
    """The winner beside its control and beside the linear probe, as far as they were compared."""
    found: list[Verdict] = []
    if results.control is not None and results.difference is not None:
        found.append(_verdict(results, "control", results.difference, results.control.validation))
    if results.probe is not None and results.probe.difference is not None:
        probe = results.probe
        found.append(_verdict(results, "probe", results.probe.difference, probe.validation))
    return found


def validated(results: Results) -> dict[Model, Mapping[str, Score]]:
    """Validation metrics of every model that was carried to the end and has them."""
    found: dict[Model, Mapping[str, Score]] = {"winner": results.winner.validation}
    if results.control is not None and results.control.validation:
        found["control"] = results.control.validation
    if results.probe is not None and results.probe.validation:
        found["probe"] = results.probe.validation
    return found


def quality(metric: str, scores: Mapping[str, Score]) -> tuple[float, float]:
    """What models are compared by, larger is better: the metric, then NLL.

    Args:
        metric: Of the search, such as ``validation/accuracy``.
        scores: Validation metrics with it.
    """
    sign = 1.0 if METRICS.get(metric, "maximize") == "maximize" else -1.0
    nll = scores["nll"].mean if "nll" in scores else 0.0
    # Means of a few seeds: what differs in the last bits is equal.
    return round(sign * scores[metric.partition("/")[2]].mean, 9), -round(nll, 9)


def is_ahead(metric: str, other: Mapping[str, Score], own: Mapping[str, Score]) -> bool:
    """Whether another model is better on validation, by the metric and then by NLL."""
    name = metric.partition("/")[2]
    return name in other and name in own and quality(metric, other) > quality(metric, own)


def best_on_validation(results: Results) -> Model:
    """Which model is best on validation; equal ones leave the winner where it is."""
    scores = validated(results)
    best: Model = "winner"
    for model, theirs in scores.items():
        if is_ahead(results.metric, theirs, scores[best]):
            best = model
    return best


def ahead(results: Results) -> str | None:
    """The sentence that comes first where a simpler model is better on validation."""
    best = best_on_validation(results)
    return None if best == "winner" else sentence_of_ahead(results, best)


def sentence_of_ahead(results: Results, other: Model) -> str:
    """That a model is better on validation, by what, and where its bundle is.

    Args:
        results: Of a run.
        other: A model that is.
    """
    name = results.metric.partition("/")[2]
    scores = validated(results)
    own, theirs = scores["winner"], scores[other]
    by = name if round(own[name].mean, 9) != round(theirs[name].mean, 9) else "nll"
    level = "" if by == name else f"are level in {name.replace('_', ' ')} and "
    said = (
        f"The {TITLES[other]} is better than the winner on the validation images "
        f"({_shown(by, theirs[by].mean)} against {_shown(by, own[by].mean)})"
        if not level
        else f"The {TITLES[other]} and the winner {level}the {TITLES[other]} has the better NLL on "
        f"the validation images ({theirs[by].mean:.3f} against {own[by].mean:.3f})"
    )
    if other == best_on_validation(results):
        return f"{said}: its bundle is in best-simple/."
    return f"{said}."


def first_card(results: Results) -> list[str]:
    """Comparisons that no finding tells already, for the place where findings are listed too."""
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
        f"Winner minus {title} on the test images: {_points(difference.mean)} points, "
        f"{100 * interval.level:.0f} % interval {_points(interval.low)} to "
        f"{_points(interval.high)} ({interval.method})"
    )
    aside = "" if gap is None else f"; on validation {_points(gap)} points"
    kind: Kind = "open"
    if interval.contains_zero:
        said = "no difference is shown"
    else:
        better = difference.mean > 0
        word = "better" if better else "worse"
        agrees = gap is not None and (gap > 0) == better and abs(gap) > 1e-9
        if agrees:
            kind = "better" if better else "worse"
            said = f"the winner is {word} than the {title}"
        else:
            kind = "disagree"
            reason = (
                f"how the {title} did on validation is not known"
                if gap is None
                else "they are level on validation"
                if abs(gap) <= 1e-9
                else f"validation says that the {title} is {'better' if better else 'worse'}"
            )
            said = f"the test images say that the winner is {word}, but {reason}: not settled"
    return Verdict(other, kind, difference, gap, f"{words}{aside}; {said}.")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _shown(name: str, value: float) -> str:
    return (
        f"NLL {value:.3f}"
        if name == "nll"
        else (f"ECE {value:.3f}" if name == "ece" else f"{100 * value:.1f} %")
    )
