"""Who proposes the trials of a simulated search, and what their training would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.replay.simulate import Objective, Outcome, Setting, SimulatedStudy


class Source(Protocol):
    """Hands out trials and hears of them."""

    def take(self) -> tuple[int, Outcome]:
        """Number and training of the next trial."""

    def report(self, number: int, k: int, value: float) -> None:
        """A trial came to rung `k`."""

    def finish(self, number: int, value: float) -> None:
        """A trial came to its end."""

    def stop(self, number: int, value: float) -> None:
        """A trial was stopped."""

    def fail(self, number: int) -> None:
        """A trial was given up."""


class RandomSource:
    """Random search: trial n is the same in every search with the same seed.

    Args:
        outcomes: Of `random_outcomes`.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = outcomes
        self._next = 0

    def take(self) -> tuple[int, Outcome]:
        number = self._next
        self._next += 1
        return number, self._outcomes[number]

    def report(self, number: int, k: int, value: float) -> None:
        pass

    def finish(self, number: int, value: float) -> None:
        pass

    def stop(self, number: int, value: float) -> None:
        pass

    def fail(self, number: int) -> None:
        pass


class ProductSource:
    """The product's TPE, one proposal ahead."""

    def __init__(self, objective: Objective, trials: int, seed: int) -> None:
        setting = Setting("mtpe", ahead=True, trials=trials)
        self._objective = objective
        self._seed = seed
        self._study = SimulatedStudy(objective, setting, seed)

    def take(self) -> tuple[int, Outcome]:
        taken = self._study.take()
        assert taken is not None
        number, params = taken
        return number, self._objective.trial(params, (self._seed, number))

    def report(self, number: int, k: int, value: float) -> None:
        self._study.report(number, k, value)

    def finish(self, number: int, value: float) -> None:
        self._study.finish(number, value)

    def stop(self, number: int, value: float) -> None:
        self._study.stop(number, value)

    def fail(self, number: int) -> None:
        self._study.fail(number)


def random_outcomes(objective: Objective, trials: int, seed: int) -> list[Outcome]:
    """Trainings of random configurations; the first has the defaults, as in the product."""
    outcomes = []
    for number in range(trials):
        params = (
            objective.space.suggest(_Draw(np.random.default_rng([seed, number])))
            if number
            else objective.defaults
        )
        outcomes.append(objective.trial(params, (seed, number)))
    return outcomes


class _Draw:
    """Takes the place of an Optuna trial: random values, a hundred times as fast."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        if log:
            value = math.exp(self._rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(high, max(low, round(value)))
        return low + step * int(self._rng.integers((high - low) // step + 1))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            return math.exp(self._rng.uniform(math.log(low), math.log(high)))
        if step is not None:
            return low + step * int(self._rng.integers(int((high - low) / step + 1e-9) + 1))
        return float(self._rng.uniform(low, high))
