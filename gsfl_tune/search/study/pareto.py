"""The Pareto front of a search with several objectives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.study.goals import feasible

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study


def front(trials: Iterable[FrozenTrial], directions: str | Sequence[str]) -> list[FrozenTrial]:
    """Returns the Pareto front of COMPLETE trials that keep the constraints.

    If trials are equal in all objectives, the one with the lowest number is kept.

    Args:
        trials: Trials of a study with several objectives.
        directions: ``maximize`` or ``minimize`` of every objective; one alone is that of the first,
            the others are minimised.

    Returns:
        The best in the second objective first: the fastest, where that is the latency.
    """
    able = [
        t
        for t in trials
        if t.state == TrialState.COMPLETE and t.values and len(t.values) > 1 and feasible(t)
    ]
    if not able:
        return []
    count = len(able[0].values)
    each = [directions] + ["minimize"] * (count - 1) if isinstance(directions, str) else directions
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in each])
    costs = {t.number: signs * np.array(t.values) for t in able}
    # The second objective first, then the others: whatever beats a trial comes before it.
    order = [1, 0, *range(2, count)]
    able.sort(key=lambda t: (*costs[t.number][order], t.number))
    found: list[FrozenTrial] = []
    for trial in able:
        if not any((costs[other.number] <= costs[trial.number]).all() for other in found):
            found.append(trial)
    return found


def candidates(study: Study) -> list[FrozenTrial]:
    """Returns COMPLETE trials that can win, best first; with several objectives only the front."""
    ranking = [trial for trial in study.ranking() if feasible(trial)]
    if not study.goals.several:
        return ranking
    numbers = {trial.number for trial in front(ranking, study.goals.directions)}
    return [trial for trial in ranking if trial.number in numbers]
