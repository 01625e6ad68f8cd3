"""Grid search over a conditional space: every distinct configuration once."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from gsfl_tune.experiment.checks import continuous, no_grid
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.configurations import Point, Tried, walk

MOST_POINTS = 100_000


def grid_points(space: Space, seed: int) -> list[Point]:
    """Returns all configurations of a space in an order shuffled by `seed`.

    Optuna's own grid walks the product of all parameters, and so repeats configurations that
    differ only in inactive parameters. This one walks the tree of conditions.

    Raises:
        UserError: When a parameter is continuous, or there are too many points.
    """
    endless = continuous(space)
    if endless:
        raise UserError("\n".join(f"{each.path}: {no_grid(each)}" for each in endless))
    points: list[Point] = []
    for node in walk(space):
        points.append(node.point)
        if len(points) > MOST_POINTS:
            raise UserError(
                f"search.sampler.name: found grid over more than {MOST_POINTS} configurations, "
                "allowed: fewer (give int parameters a step, or use sobol)"
            )
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


class GridSampler(BaseSampler):
    """Proposes the first point of the grid that no trial of the study has.

    It stores what was tried: one sampler serves all trials of a study.

    Args:
        space: The search space.
        seed: Seed of the order, see `grid_points`.

    Raises:
        UserError: When a parameter is continuous, or there are too many points.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._points = grid_points(space, seed)
        self._tried = Tried(space)
        # All points before this one were tried.
        self._first = 0
        self._proposed: tuple[int, Point] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: no parameters are sampled jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing: no parameters are sampled jointly."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns the parameter's value at the trial's point."""
        if self._proposed is None or self._proposed[0] != trial.number:
            point = self._next(study) or self._points[0]
            self._proposed = (trial.number, point)
        return self._proposed[1][param_name]

    def _next(self, study: optuna.Study) -> Point | None:
        self._tried.look(study.get_trials(deepcopy=False))
        while self._first < len(self._points):
            point = self._points[self._first]
            if self._tried.is_new(point):
                return point
            self._first += 1
        return None
