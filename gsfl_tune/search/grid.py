"""Grid search over a conditional space: every distinct configuration once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from gsfl_tune.experiment.checks import continuous, no_grid
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.space import Space

MOST_POINTS = 100_000

Point = dict[str, Any]


def grid_points(space: Space, seed: int) -> list[Point]:
    """All configurations of a space in an order shuffled by `seed`.

    Optuna's own grid walks the product of all parameters and so tries configurations twice
    that differ in inactive parameters only; this one walks the tree of conditions.

    Raises:
        UserError: When a parameter is continuous, or there are too many points.
    """
    endless = continuous(space)
    if endless:
        raise UserError("\n".join(f"{each.path}: {no_grid(each)}" for each in endless))
    points: list[Point] = []
    for point in _walk(space):
        points.append(point)
        if len(points) > MOST_POINTS:
            raise UserError(
                f"search.sampler.name: found grid over more than {MOST_POINTS} configurations, "
                "allowed: fewer (give int parameters a step, or use sobol)"
            )
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


class GridSampler(BaseSampler):
    """Proposes the first point of the grid that no trial of the study has.

    Args:
        points: The grid, see `grid_points`.
    """

    def __init__(self, points: list[Point]) -> None:
        self.points = points
        self._proposed: tuple[int, Point] | None = None

    def exhausted(self, study: optuna.Study) -> bool:
        """Whether the study has had every point."""
        return self._next(study, number=-1) is None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled jointly."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The parameter's value at the trial's point."""
        if self._proposed is None or self._proposed[0] != trial.number:
            point = self._next(study, trial.number) or self.points[0]
            self._proposed = (trial.number, point)
        return self._proposed[1][param_name]

    def _next(self, study: optuna.Study, number: int) -> Point | None:
        tried = {
            _key(trial.params)
            for trial in study.get_trials(deepcopy=False)
            if trial.number != number
        }
        return next((point for point in self.points if _key(point) not in tried), None)


def _key(params: Point) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, _rounded(value)) for name, value in params.items()))


def _rounded(value: Any) -> Any:
    # Steps add up to 0.30000000000000004 where a user enqueued 0.3.
    return repr(round(value, 12)) if isinstance(value, float) else repr(value)


def _walk(space: Space) -> Iterator[Point]:
    """Depth-first over the tree of choices that conditions span."""
    prefix: list[int] = []
    while True:
        odometer = _Odometer(prefix)
        space.suggest(odometer)
        yield odometer.point
        prefix = odometer.positions
        while prefix and prefix[-1] + 1 == odometer.sizes[len(prefix) - 1]:
            prefix.pop()
        if not prefix:
            return
        prefix[-1] += 1


class _Odometer:
    """Takes the place of an Optuna trial: follows `prefix`, then takes first values."""

    def __init__(self, prefix: list[int]) -> None:
        self.positions = list(prefix)
        self.sizes: list[int] = []
        self.point: Point = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, list(choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return self._take(name, range(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:  # low == high: `grid_points` refuses ranges without steps
            return self._take(name, [low])
        count = math.floor((high - low) / step + 1e-8) + 1
        return self._take(name, [low + i * step for i in range(count)])

    def _take(self, name: str, values: Sequence[Any]) -> Any:
        if name in self.point:
            return self.point[name]
        depth = len(self.sizes)
        if depth == len(self.positions):
            self.positions.append(0)
        self.sizes.append(len(values))
        self.point[name] = values[self.positions[depth]]
        return self.point[name]
