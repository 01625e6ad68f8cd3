"""The distinct configurations of a space: which there are, which were tried, what comes next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.distributions import Categorical
from gsfl_tune.experiment.space import Space

# Draws of everything at random before what is left of a space is looked up.
_DRAWS = 100

Point = dict[str, Any]
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Node:
    """A configuration on the way through a space.

    Attributes:
        point: Values by parameter; of a continuous parameter its lowest.
        endless: Whether it stands for as many as there are numbers.
    """

    point: Point
    endless: bool


def walk(space: Space) -> Iterator[Node]:
    """Depth-first over the tree of choices that conditions span: every configuration once."""
    prefix: list[int] = []
    while True:
        odometer = _Odometer(prefix)
        point = space.suggest(odometer)
        yield Node(point, odometer.endless)
        prefix = odometer.positions
        while prefix and prefix[-1] + 1 == odometer.sizes[len(prefix) - 1]:
            prefix.pop()
        if not prefix:
            return
        prefix[-1] += 1


def count_configurations(space: Space, most: int) -> int | None:
    """How many configurations a space has; None for more than `most` or a continuous one."""
    count = 0
    for node in walk(space):
        count += 1
        if node.endless or count > most:
            return None
    return count


def key_of(space: Space, params: Mapping[str, Any]) -> Key:
    """What makes two trials one configuration: the values of their active parameters."""
    return exact_key(space.active_params(params))


def exact_key(active: Mapping[str, Any]) -> Key:
    """The same of values that `Space.active_params` gave."""
    return tuple(sorted((name, repr(value)) for name, value in active.items()))


class Tried:
    """The configurations of a study's trials, and the values of its choices that they had.

    A configuration that failed counts: it would fail again.

    Args:
        space: What is searched.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._keys: set[Key] = set()
        self._open: set[int] = set()
        self._looked = 0
        self._untried: dict[str, list[Any]] = {
            parameter.name: list(parameter.distribution.choices)
            for parameter in space.parameters
            if isinstance(parameter.distribution, Categorical)
        }
        self._walk = walk(space)
        self._next: Node | None = next(self._walk, None)

    def __len__(self) -> int:
        return len(self._keys)

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Takes in the trials of the study; those that ended are looked at once."""
        self._open.update(range(self._looked, len(trials)))
        self._looked = len(trials)
        for number in sorted(self._open):
            trial = trials[number]
            if trial.state.is_finished():
                self._open.remove(number)
            if trial.state != TrialState.WAITING:
                self._add(trial.params)

    def is_new(self, params: Mapping[str, Any]) -> bool:
        """Whether no trial had this configuration."""
        return key_of(self._space, params) not in self._keys

    def exhausted(self) -> bool:
        """Whether there is no other configuration."""
        while (
            self._next is not None and not self._next.endless and not self.is_new(self._next.point)
        ):
            self._next = next(self._walk, None)
        return self._next is None

    def untried(self) -> Mapping[str, Sequence[Any]]:
        """By choice, the values that no trial had, where there are such."""
        return {name: values for name, values in self._untried.items() if values}

    def draw(self, rng: np.random.Generator, *, everything: bool = False) -> Point:
        """A configuration that no trial had, drawn at random.

        Args:
            rng: Draws.
            everything: Draw inactive parameters too, see `Space.suggest`.

        Raises:
            ValueError: If there is none.
        """
        for _ in range(_DRAWS):
            params = self._space.suggest(Anywhere(rng), everything=everything)
            if self.is_new(params):
                return params
        if self.exhausted() or self._next is None:
            raise ValueError("every configuration was tried")
        return self._space.suggest(Anywhere(rng, self._next.point), everything=everything)

    def _add(self, params: Mapping[str, Any]) -> None:
        active = self._space.active_params(params)
        self._keys.add(exact_key(active))
        for name, value in active.items():
            left = self._untried.get(name)
            if left:
                self._untried[name] = [each for each in left if repr(each) != repr(value)]


class _Odometer:
    """Takes the place of an Optuna trial: follows `prefix`, then takes first values."""

    def __init__(self, prefix: list[int]) -> None:
        self.positions = list(prefix)
        self.sizes: list[int] = []
        self.endless = False

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(list(choices))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return self._take(range(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            self.endless |= low < high
            return self._take([low])
        count = math.floor((high - low) / step + 1e-8) + 1
        return self._take([low + i * step for i in range(count)])

    def _take(self, values: Sequence[Any]) -> Any:
        depth = len(self.sizes)
        if depth == len(self.positions):
            self.positions.append(0)
        self.sizes.append(len(values))
        return values[self.positions[depth]]


class Anywhere:
    """Takes the place of an Optuna trial: draws uniformly what is not given.

    Args:
        rng: Draws.
        given: Values by parameter name.
    """

    def __init__(self, rng: np.random.Generator, given: Mapping[str, Any] | None = None) -> None:
        self._rng = rng
        self._given = given or {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draws one of the choices."""
        return self._given.get(name, choices[int(self._rng.integers(len(choices)))])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Draws an integer."""
        if log and name not in self._given:
            ends = math.log(low - 0.5), math.log(high + 0.5)
            return min(max(round(math.exp(self._rng.uniform(*ends))), low), high)
        drawn = low + step * int(self._rng.integers((high - low) // step + 1))
        return int(self._given.get(name, drawn))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Draws a number."""
        if step is not None:
            count = math.floor((high - low) / step + 1e-8) + 1
            drawn = low + step * int(self._rng.integers(count))
            return float(self._given.get(name, drawn))
        if log:
            return float(
                np.clip(math.exp(self._rng.uniform(math.log(low), math.log(high))), low, high)
            )
        return float(self._rng.uniform(low, high))
