"""Which trials are trained again at the end of a search."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.pareto import candidates

if TYPE_CHECKING:
    from gsfl_tune.search.study import Study


def choose_finalists(study: Study, count: int) -> list[FrozenTrial]:
    """The best trials that came to their end; where they are fewer, those that came furthest.

    A trial that was stopped late, by the scheduler or because time was used up, is trained to its
    end among the finalists. No configuration is named twice: the first of equal ones stands.

    Args:
        study: The study.
        count: How many are wanted.

    Returns:
        At most `count` trials, best first; none where no trial came to a rung.
    """
    wanted = [*candidates(study), *(_stopped(study) if not study.latency else [])]
    found: list[FrozenTrial] = []
    known: list[dict[str, Any]] = []
    for trial in wanted:
        params = study.space.active_params(trial.params)
        if len(found) < count and params not in known:
            found.append(trial)
            known.append(params)
    return found


def _stopped(study: Study) -> list[FrozenTrial]:
    """PRUNED trials, those of the last rung first, the best of a rung first."""
    sign = -1.0 if study.direction == "maximize" else 1.0
    able = []
    for trial in study.trials():
        rungs = study.rungs(trial)
        if trial.state == TrialState.PRUNED and rungs:
            last = max(rungs)
            if math.isfinite(rungs[last]):
                able.append((-last, sign * rungs[last], trial.number, trial))
    return [trial for *_, trial in sorted(able, key=lambda each: each[:3])]
