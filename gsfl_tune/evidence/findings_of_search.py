"""Findings about the search: rungs, values, failures, curves, parameters and idle slots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from gsfl_tune.evidence.findings_of_curves import of_crossings, of_curves
from gsfl_tune.evidence.findings_of_parameters import Explained, of_parameters
from gsfl_tune.run.results import Finding

# Spearman's correlation of fewer trials is within chance of anything.
FEWEST_AT_RUNGS = 8
_FEWEST_COMPLETE = 10
_FEWEST_FAILED = 3
_MANY_FAILED = 0.1
# A random search has its best value in the first tenth in one case of ten; of few trials the
# first tenth is one trial.
_FEWEST_FLAT = 20
_SMALL_FRONT = 2
# Of the time of all slots, and seconds: a short run is mostly the start of its workers.
_MOSTLY_IDLE = 0.5
_LONG = 600.0


@dataclass(frozen=True)
class Work:
    """Holds how busy the slots of a run were.

    Attributes:
        slots: Number of slots that worked.
        seconds: From the first to the last piece of work, without interruptions.
        busy: Share of this time of all slots in which they worked.
    """

    slots: int
    seconds: float
    busy: float


@dataclass(frozen=True)
class Searched:
    """Holds what the trials of a search came to.

    Attributes:
        rungs: Of every trial, in the order of their numbers, its value by rung.
        values: Values of the trials that came to their end and can win, in the order in which they
            ended.
        states: Number of trials by state: COMPLETE, PRUNED, FAIL and others, without those that a
            changed space no longer has.
        sign: 1 where larger values are better, -1 where smaller ones are.
        curves: Of every trial that came to its end, the metric by epoch of its last stage.
        front: Number of configurations on the Pareto front; 0 with a single objective.
        explained: Importances of the parameters; None with too few trials.
        work: How busy the slots were; None if unknown.
    """

    rungs: Sequence[Mapping[int, float]] = ()
    values: Sequence[float] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    sign: float = 1.0
    curves: Sequence[Sequence[float]] = ()
    front: int = 0
    explained: Explained | None = None
    work: Work | None = None


def of_search(searched: Searched) -> Iterator[Finding]:
    """Finds problems of a search that a reader of its winner should know."""
    by_rung = list(_of_rungs(searched))
    yield from by_rung
    # Where the first rung says nothing, a later one that says nothing adds little.
    if not by_rung:
        yield from of_crossings(searched.curves, searched.sign)
    yield from of_curves(searched.curves, searched.sign)
    yield from _of_values(searched)
    yield from _of_front(searched)
    yield from of_parameters(searched.explained)
    yield from _of_work(searched.work)
    failed, count = searched.states.get("FAIL", 0), sum(searched.states.values())
    if failed >= _FEWEST_FAILED and failed > _MANY_FAILED * count:
        yield Finding(
            "many_failed",
            "warning",
            {"failed": failed, "trials": count},
            f"{failed} of {count} trials failed: parts of the space may not have been searched. "
            "`results` and the report list the reasons.",
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
            f"Of the {len(both)} trials that reached both, the order at the first rung says "
            f"nothing about that at the last one (rank correlation {correlation:.2f}). Good trials "
            "may have been stopped by chance; a longer search.scheduler.grace may help.",
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
    place = int(values.argmax())
    if len(values) >= _FEWEST_FLAT and 10 * (place + 1) <= len(values):
        yield Finding(
            "best_from_the_start",
            "note",
            {"place": place + 1, "trials": len(values), "best": searched.sign * best},
            f"The best of the {len(values)} trials that came to their end was number {place + 1} "
            "to do so: the space has nothing better, or the sampler does not find it.",
        )


def _of_front(searched: Searched) -> Iterator[Finding]:
    if 0 < searched.front <= _SMALL_FRONT and len(searched.values) >= _FEWEST_COMPLETE:
        points = f"{searched.front} point{'s' if searched.front > 1 else ''}"
        yield Finding(
            "small_front",
            "note",
            {"points": searched.front, "trials": len(searched.values)},
            f"The Pareto front has {points} after {len(searched.values)} finished trials: the "
            "objectives hardly conflict here, or the search was too short.",
        )


def _of_work(work: Work | None) -> Iterator[Finding]:
    if work and work.slots > 1 and work.seconds >= _LONG and work.busy < _MOSTLY_IDLE:
        yield Finding(
            "slots_idle",
            "note",
            {"slots": work.slots, "seconds": work.seconds, "busy": work.busy},
            f"The {work.slots} slots worked {100 * work.busy:.0f} % of the time: fewer would do, "
            "or something held them up. The report draws when.",
        )
