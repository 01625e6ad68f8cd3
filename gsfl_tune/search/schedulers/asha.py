"""Asynchronous successive halving over rungs that are counted, not timed.

It uses neither Ray nor Optuna: the same object decides in a live search, when a search is
resumed, and in a replay on a simulated clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

Direction = Literal["maximize", "minimize"]


class Asha:
    """Decides at every rung whether a trial continues (Li et al., arXiv 1810.05934).

    The rule is Ray's (``AsyncHyperBandScheduler``): a trial stops when its value is worse than
    the ``1 - 1/reduction`` percentile of the values that other trials of its bracket have
    recorded at this rung before it. The first trial at a rung always continues. Unlike in Ray, a
    trial's bracket is drawn from (seed, trial number), and rungs can be rebuilt. So a resumed
    search decides like an uninterrupted one.

    Args:
        rungs: Rungs of every trial, numbered from 0; the last is the end of a trial.
        reduction: One in this many trials survives a rung.
        brackets: Number of brackets, at most the number of rungs; the b-th skips the first b rungs.
        direction: Whether larger values or smaller ones are better.
        seed: Seed of the study.
        before: Rungs in front of rung 0, numbered from -`before`. A trial may lack some of them.
    """

    def __init__(
        self,
        rungs: int,
        *,
        reduction: float,
        brackets: int = 1,
        direction: Direction = "maximize",
        seed: int = 0,
        before: int = 0,
    ) -> None:
        if rungs < 1 or reduction <= 1 or brackets < 1 or before < 0:
            raise ValueError(f"rungs {rungs}, reduction {reduction}, brackets {brackets}")
        self.rungs = rungs
        self.before = before
        self.reduction = reduction
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._brackets = Brackets(before + rungs, brackets, seed)
        self._recorded = [
            {k: _Rung() for k in range(-before, rungs)} for _ in range(self._brackets.count)
        ]

    def bracket(self, number: int) -> int:
        """Returns the bracket of a trial, a function of (seed, trial number)."""
        return self._brackets.of(number)

    def cutoff(self, bracket: int, k: int) -> float | None:
        """Returns the value below which a trial stops at rung `k` now; None without records."""
        found = self._recorded[bracket][k].percentile((1 - 1 / self.reduction) * 100)
        return None if found is None else self._sign * found

    def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
        """Records a value at rung `k` and decides.

        Args:
            number: Trial number.
            k: Rung, from -`before`.
            value: The objective there; in front of rung 0, whatever all trials report there.
            protected: Whether the trial is never stopped; others are still compared with it.

        Returns:
            Whether the trial stops. A rung that the trial recorded before does not stop it, and
            the last rung does not either, as the trial ends there anyway.
        """
        bracket = self.bracket(number)
        recorded = self._recorded[bracket][k]
        if k + self.before < bracket or number in recorded:
            return False
        cutoff = self.cutoff(bracket, k)
        recorded.add(number, self._sign * value)
        if protected or cutoff is None or k >= self.rungs - 1:
            return False
        # In this form a value that is not a number stops nothing, as in Ray.
        return self._sign * value < self._sign * cutoff

    def promotable(self, paused: Mapping[int, int]) -> int | None:
        """Chooses the paused trial that continues, by all values that its rung has by now.

        A trial is judged at its first arrival by those that came before it. Later ones may show
        that it is among the best after all: Li et al. promote such trials (algorithm 2, line 12).

        Args:
            paused: The rung at which a trial waits, by its number.

        Returns:
            The best trial of the deepest rung; None where none is good enough.
        """
        percent = (1 - 1 / self.reduction) * 100
        found = []
        for number, k in paused.items():
            if k < -self.before:
                continue  # of a space whose pretrainings had more rungs
            recorded = self._recorded[self.bracket(number)][k]
            value = recorded.values.get(number, math.nan)
            cutoff = recorded.percentile(percent, without=number)
            if cutoff is not None and value >= cutoff:
                found.append((-k, -value, number))
        return min(found)[2] if found else None

    def rebuild(self, trials: Iterable[tuple[int, Mapping[int, float]]]) -> None:
        """Records values from a journal: (trial number, values by rung), in any order."""
        for number, values in trials:
            for k, value in values.items():
                if -self.before <= k < self.rungs and not math.isnan(value):
                    self.record(number, k, value)


class Brackets:
    """Draws the brackets of trials.

    Args:
        rungs: Rungs of every trial.
        brackets: Number of brackets, at most the number of rungs.
        seed: Seed of the study.
    """

    def __init__(self, rungs: int, brackets: int, seed: int) -> None:
        self._seed = seed
        # Shares as in Ray: a softmax over the number of rungs of each bracket.
        sizes = np.array([rungs - b for b in range(min(brackets, rungs))], dtype=float)
        shares = np.exp(sizes - sizes.max())
        self._cumulative = np.cumsum(shares / shares.sum())

    @property
    def count(self) -> int:
        """Returns the number of brackets."""
        return len(self._cumulative)

    def of(self, number: int) -> int:
        """Returns the bracket of a trial, a function of (seed, trial number)."""
        if self.count == 1:
            return 0
        draw = np.random.default_rng([self._seed, number]).random()
        return min(int(np.searchsorted(self._cumulative, draw)), self.count - 1)


class _Rung:
    """Keeps the recorded values of a rung sorted: a decision costs the same after 10 trials and
    after 10,000.
    """

    def __init__(self) -> None:
        self.values: dict[int, float] = {}
        self._sorted: list[float] = []

    def __contains__(self, number: int) -> bool:
        return number in self.values

    def add(self, number: int, value: float) -> None:
        """Records a trial's value; a value that is not a number is ignored."""
        self.values[number] = value
        if not math.isnan(value):
            insort(self._sorted, value)

    def percentile(self, percent: float, *, without: int | None = None) -> float | None:
        """Returns exactly what ``numpy.percentile`` gives; None without values.

        Args:
            percent: From 0 to 100.
            without: Number of a trial whose value does not count.
        """
        # Where its own value stands; without one, behind all others.
        own = len(self._sorted)
        if without is not None and not math.isnan(value := self.values.get(without, math.nan)):
            own = bisect_left(self._sorted, value)
        count = len(self._sorted) - (own < len(self._sorted))
        if not count:
            return None
        position = percent / 100 * (count - 1)
        below = math.floor(position)
        after = min(below + 1, count - 1)
        low, high = self._sorted[below + (below >= own)], self._sorted[after + (after >= own)]
        part = position - below
        if part >= 0.5:
            return high - (high - low) * (1 - part)
        return low + (high - low) * part
