"""Findings about the search: rungs that decided nothing, a best value that still rose, failures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from gsfl_tune.run.results import Finding

# Spearman's correlation of fewer trials is within chance of anything.
FEWEST_AT_RUNGS = 8
_FEWEST_COMPLETE = 10
_FEWEST_FAILED = 3
_MANY_FAILED = 0.1


@dataclass(frozen=True)
class Searched:
    """Holds what the trials of a search came to.

    Attributes:
        rungs: Of every trial, in the order of their numbers, its value by rung.
        values: Values of the trials that came to their end, in the order in which they ended.
        states: Number of trials by state: COMPLETE, PRUNED, FAIL and others.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """

    rungs: Sequence[Mapping[int, float]] = ()
    values: Sequence[float] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    sign: float = 1.0


def of_search(searched: Searched) -> Iterator[Finding]:
    """Finds problems of a search that a reader of its winner should know."""
    yield from _of_rungs(searched)
    yield from _of_values(searched)
    failed, count = searched.states.get("FAIL", 0), sum(searched.states.values())
    if failed >= _FEWEST_FAILED and failed > _MANY_FAILED * count:
        yield Finding(
            "many_failed",
            "warning",
            {"failed": failed, "trials": count},
            f"{failed} of {count} trials failed: parts of the space were not searched. `results` "
            "and the report list the reasons.",
        )


def _of_rungs(searched: Searched) -> Iterator[Finding]:
    last = max((max(each) for each in searched.rungs if each), default=0)
    both = [(each[0], each[last]) for each in searched.rungs if 0 in each and last in each]
    if last == 0 or len(both) < FEWEST_AT_RUNGS:
        return
    early, late = (np.asarray(values) for values in zip(*both, strict=True))
    if np.ptp(early) == 0 or np.ptp(late) == 0:
        return  # no order to compare
    correlation = float(spearmanr(early, late).statistic)
    if correlation <= 0:
        yield Finding(
            "rungs_do_not_agree",
            "warning",
            {"correlation": correlation, "trials": len(both)},
            f"The first rung says nothing about the last one: of {len(both)} trials that reached "
            f"both the rank correlation is {correlation:.2f}. Good trials may have been stopped by "
            "chance; a longer search.scheduler.grace would help.",
        )


def _of_values(searched: Searched) -> Iterator[Finding]:
    values = np.asarray(searched.values, dtype=np.float64) * searched.sign
    if len(values) < _FEWEST_COMPLETE:
        return
    first = len(values) - math.ceil(len(values) / 5)
    before, best = float(values[:first].max()), float(values.max())
    if best > before:
        yield Finding(
            "still_improving",
            "note",
            {"before": searched.sign * before, "best": searched.sign * best},
            f"The best value was found by the last fifth of the {len(values)} trials that came to "
            "their end: more trials may find better ones.",
        )
