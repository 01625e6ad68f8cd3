"""The distinct configurations of a space: enumeration, tried ones, and draws of new ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gsfl_tune.experiment.distributions import Categorical
from gsfl_tune.experiment.space import Space

if TYPE_CHECKING:  # `gsfl-tune check` counts configurations and needs no Optuna
    from optuna.trial import FrozenTrial

# Random draws of whole configurations before the untried ones are enumerated.
_DRAWS = 100
# Configurations that are looked at in one go. Those that differ in what has no effect are one, so
# that many may have to be passed over.
_MOST_LOOKED = 20_000

Point = dict[str, Any]
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Node:
    """Holds a configuration during the walk through a space.

    Attributes:
        point: Values by parameter; the lowest value for a continuous parameter.
        endless: Whether it stands for infinitely many configurations.
    """

    point: Point
    endless: bool


def walk(space: Space) -> Iterator[Node]:
    """Walks the tree of choices that conditions span, depth first.

    Every configuration comes once, or once for each value of what has no effect in it.
    """
    prefix: list[int] = []
    named = {path for parameter in space.parameters for path in parameter.when}
    decide = {parameter.name for parameter in space.parameters if parameter.path in named}
    while True:
        odometer = _Odometer(prefix)
        point = space.suggest(odometer)
        endless = odometer.endless and odometer.endless & (
            decide | space.active_params(point).keys()
        )
        yield Node(point, bool(endless))
        prefix = odometer.positions
        while prefix and prefix[-1] + 1 == odometer.sizes[len(prefix) - 1]:
            prefix.pop()
        if not prefix:
            return
        prefix[-1] += 1


def count_configurations(space: Space, most: int) -> int | None:
    """Counts the configurations of a space; None for more than `most` or a continuous one."""
    keys: set[Key] = set()
    for looked, node in enumerate(walk(space)):
        keys.add(key_of(space, node.point))
        if node.endless or len(keys) > most or looked == _MOST_LOOKED:
            return None
    return len(keys)


def key_of(space: Space, params: Mapping[str, Any]) -> Key:
    """Returns the identity of a configuration: the values that have an effect in it."""
    return exact_key(space.active_params(params))


def exact_key(active: Mapping[str, Any]) -> Key:
    """Returns the same from values that `Space.active_params` gave."""
    return tuple(sorted((name, repr(value)) for name, value in active.items()))


class Tried:
    """Holds the configurations of a study's trials, and the tried values of its choices.

    A failed configuration counts as tried: it would fail again.

    Args:
        space: The search space.
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
        """Registers the trials of the study; trials that ended are read once."""
        self._open.update(range(self._looked, len(trials)))
        self._looked = len(trials)
        for number in sorted(self._open):
            trial = trials[number]
            if trial.state.is_finished():
                self._open.remove(number)
            if trial.state.name != "WAITING":
                self._add(trial.params)

    def is_new(self, params: Mapping[str, Any]) -> bool:
        """Returns whether no trial had this configuration."""
        return key_of(self._space, params) not in self._keys

    def exhausted(self, most: int | None = _MOST_LOOKED) -> bool:
        """Returns whether every configuration was tried.

        Args:
            most: Number of tried configurations after which it is taken for granted that there are
                others; the next call goes on from there. None: all are looked at.
        """
        for _ in itertools.count() if most is None else range(most):
            following = self._next
            if following is None or following.endless or self.is_new(following.point):
                break
            self._next = next(self._walk, None)
        return self._next is None

    def untried(self) -> Mapping[str, Sequence[Any]]:
        """Returns the untried values by choice, for choices that have some."""
        return {name: values for name, values in self._untried.items() if values}

    def draw(self, rng: np.random.Generator, *, everything: bool = False) -> Point:
        """Draws an untried configuration at random.

        Args:
            rng: Source of random numbers.
            everything: Draw inactive parameters too, see `Space.suggest`.

        Raises:
            ValueError: If there is none.
        """
        for _ in range(_DRAWS):
            params = self._space.suggest(Anywhere(rng), everything=everything)
            if self.is_new(params):
                return params
        if self.exhausted(most=None) or self._next is None:
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
    """Replaces an Optuna trial: follows `prefix`, then takes first values."""

    def __init__(self, prefix: list[int]) -> None:
        self.positions = list(prefix)
        self.sizes: list[int] = []
        self.endless: set[str] = set()

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
            if low < high:
                self.endless.add(name)
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
    """Replaces an Optuna trial: draws uniformly what is not given.

    Args:
        rng: Source of random numbers.
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
        if step is None and name in self._given:
            return float(self._given[name])
        if step is not None:
            count = math.floor((high - low) / step + 1e-8) + 1
            drawn = low + step * int(self._rng.integers(count))
            return float(self._given.get(name, drawn))
        if log:
            return float(
                np.clip(math.exp(self._rng.uniform(math.log(low), math.log(high))), low, high)
            )
        return float(self._rng.uniform(low, high))
