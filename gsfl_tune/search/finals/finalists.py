"""The choice of finalists, which are trained again at the end of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.search.study.pareto import candidates

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

# The metric of a trial by epoch, from its number; empty where it is not known.
Curve = Callable[[int], Sequence[float]]


def curves_of(study: Study, run: RunDirectory) -> Curve:
    """Returns a function that reads the metric of a trial by epoch from the trial's own file.

    Args:
        study: The study.
        run: The run that it belongs to.
    """

    def read(number: int) -> list[float]:
        epochs = EpochLog(run.trial(study.name, number) / EPOCHS_FILE).read()
        return [float(epoch.get(study.metric, math.nan)) for epoch in epochs]

    return read


def choose_finalists(study: Study, count: int, curve: Curve | None = None) -> list[FrozenTrial]:
    """Returns the best complete trials, and stopped trials that were ahead of them when stopped.

    A trial that was stopped late, by the scheduler or by lack of time, ranks above complete trials
    that were worse after as many epochs, or at the same rung where the epochs are not known. Only
    the last two rungs count, and never the first: others say too little. If there are too few
    trials, those that came furthest join. A stopped trial is trained to its end among the
    finalists. Of equal configurations only the first is named.

    Args:
        study: The study.
        count: Number of finalists wanted.
        curve: The metric of a trial by epoch.

    Returns:
        At most `count` trials, best first; none when no trial reached a rung.
    """
    wanted = candidates(study)
    if not study.latency:
        ended = len(wanted)
        for trial in _stopped(study):
            ahead = (
                place
                for place, other in enumerate(wanted[:ended])
                if other.state == TrialState.COMPLETE and _ahead_of(study, trial, other, curve)
            )
            place = next(ahead, len(wanted))
            wanted.insert(place, trial)
            ended += place < ended
    found: list[FrozenTrial] = []
    known: list[dict[str, Any]] = []
    for trial in wanted:
        params = study.space.active_params(trial.params)
        if len(found) < count and params not in known:
            found.append(trial)
            known.append(params)
    return found


def _ahead_of(study: Study, trial: FrozenTrial, other: FrozenTrial, curve: Curve | None) -> bool:
    """Returns whether a stopped trial was better when it was stopped than another trial then."""
    rungs = study.rungs(trial)
    last = max(rungs)
    # Earlier rungs say little of the end: after one of eight epochs the order is nearly random.
    if last == 0 or last < max(study.rungs(other), default=0) - 1:
        return False
    own, value = rungs[last], study.rungs(other).get(last, study.value(other))
    # Without time a trial stops between two rungs, often one epoch before its end.
    curves = [] if curve is None else [curve(trial.number), curve(other.number)]
    if curves and 0 < len(curves[0]) <= len(curves[1]):
        epoch = len(curves[0]) - 1
        if all(math.isfinite(each[epoch]) for each in curves):
            own, value = curves[0][epoch], curves[1][epoch]
    if value is None or not math.isfinite(value):
        return False
    return own > value if study.direction == "maximize" else own < value


def _stopped(study: Study) -> list[FrozenTrial]:
    """Returns PRUNED trials: those of the last rung first, the best of a rung first."""
    sign = -1.0 if study.direction == "maximize" else 1.0
    able = []
    for trial in study.trials():
        rungs = study.rungs(trial)
        if trial.state == TrialState.PRUNED and rungs:
            last = max(rungs)
            if math.isfinite(rungs[last]):
                able.append((-last, sign * rungs[last], trial.number, trial))
    return [trial for *_, trial in sorted(able, key=lambda each: each[:3])]
