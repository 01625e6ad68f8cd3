"""The Pareto front of a search with two objectives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study


def front(trials: Iterable[FrozenTrial], direction: str) -> list[FrozenTrial]:
    """Returns the Pareto front of COMPLETE trials, the fastest first.

    If trials are equal in both objectives, the one with the lowest number is kept.

    Args:
        trials: Trials of a study with a metric and a latency.
        direction: ``maximize`` or ``minimize``: direction of the metric.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    able = [t for t in trials if t.state == TrialState.COMPLETE and t.values and len(t.values) > 1]
    found: list[FrozenTrial] = []
    # Sorted by latency: a slower trial must be better than all before it.
    for trial in sorted(able, key=lambda t: (t.values[1], sign * t.values[0], t.number)):
        if not found or sign * trial.values[0] < sign * found[-1].values[0]:
            found.append(trial)
    return found


def candidates(study: Study) -> list[FrozenTrial]:
    """Returns COMPLETE trials that can win, best first; with two objectives only the front."""
    ranking = study.ranking()
    if not study.latency:
        return ranking
    numbers = {trial.number for trial in front(ranking, study.direction)}
    return [trial for trial in ranking if trial.number in numbers]
