"""The choice of finalists, which are trained again at the end of a search."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.study.pareto import candidates

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study


def choose_finalists(study: Study, count: int) -> list[FrozenTrial]:
    """Returns the best complete trials, and stopped trials that were ahead of them when stopped.

    A trial that was stopped late, by the scheduler or by lack of time, ranks above complete trials
    that were worse at the same rung. The first rung does not count: it says too little. If there
    are too few trials, those that came furthest join. A stopped trial is trained to its end among
    the finalists. Of equal configurations only the first is named.

    Args:
        study: The study.
        count: Number of finalists wanted.

    Returns:
        At most `count` trials, best first; none when no trial reached a rung.
    """
    wanted = candidates(study)
    if not study.latency:
        ended = len(wanted)
        for trial in _stopped(study):
            ahead = (i for i in range(ended) if _ahead_of(study, trial, wanted[i]))
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


def _ahead_of(study: Study, trial: FrozenTrial, other: FrozenTrial) -> bool:
    """Returns whether a stopped trial was better at its last rung than another trial there."""
    rungs = study.rungs(trial)
    last = max(rungs)
    if last == 0:
        return False
    value = study.rungs(other).get(last, study.value(other))
    if value is None or not math.isfinite(value):
        return False
    better = rungs[last] - value
    return better > 0 if study.direction == "maximize" else better < 0


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
