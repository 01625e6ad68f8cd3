"""Asynchronous successive halving for several objectives.

Sources: Schmucker, Donini, Zafar, Salinas and Archambeau, "Multi-objective Asynchronous Successive
Halving", arXiv 2106.12639 (survivors by non-dominated sorting, ties by an epsilon-net); the net
itself, a greedy cover, is that of Salinas, Perrone, Cruchant and Archambeau, arXiv 2106.05680.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.search.schedulers.asha import Brackets

Costs = NDArray[np.float64]


class ParetoAsha:
    """Decides at every rung whether a trial continues, by all objectives.

    A trial stops when more than one in `reduction` of the trials that its bracket recorded at this
    rung before come ahead of it: those of earlier fronts, and those of its own front that the
    epsilon-net takes first. The first trial at a rung always continues. Neither the order of
    records nor a resume changes what is ahead of a trial.

    Args:
        rungs: Rungs of every trial, numbered from 0; the last is the end of a trial.
        reduction: One in this many trials survives a rung.
        brackets: Number of brackets, at most the number of rungs; the b-th skips the first b rungs.
        seed: Seed of the study.
        before: Rungs in front of rung 0, numbered from -`before`. A trial may lack some of them.
    """

    def __init__(
        self,
        rungs: int,
        *,
        reduction: float = 2,
        brackets: int = 1,
        seed: int = 0,
        before: int = 0,
    ) -> None:
        if rungs < 1 or reduction <= 1 or brackets < 1 or before < 0:
            raise ValueError(f"rungs {rungs}, reduction {reduction}, brackets {brackets}")
        self.rungs = rungs
        self.before = before
        self.reduction = reduction
        self._brackets = Brackets(before + rungs, brackets, seed)
        self._recorded: list[dict[int, dict[int, Sequence[float] | None]]] = [
            {k: {} for k in range(-before, rungs)} for _ in range(self._brackets.count)
        ]

    def record(
        self,
        number: int,
        k: int,
        costs: Sequence[float] | None,
        *,
        protected: bool = False,
    ) -> bool:
        """Records the objectives at rung `k` and decides.

        Args:
            number: Trial number.
            k: Rung, from -`before`.
            costs: The objectives, smaller is better (in front of rung 0 one number); None, where
                one is not a number, stops nothing and no other trial is compared with it.
            protected: Whether the trial is never stopped; others are still compared with it.

        Returns:
            Whether the trial stops; never at its last rung, nor at one that it recorded before.
        """
        bracket = self._brackets.of(number)
        recorded = self._recorded[bracket][k]
        if k + self.before < bracket or number in recorded:
            return False
        others = [recorded[other] for other in sorted(recorded)]
        known = [each for each in others if each is not None]
        recorded[number] = costs
        if protected or costs is None or not known or k >= self.rungs - 1:
            return False
        ahead = place_among(np.array(costs, dtype=float), np.array(known, dtype=float))
        return ahead > len(known) / self.reduction

    def promotable(self, paused: Mapping[int, int]) -> int | None:
        """Chooses the paused trial that continues, see `Asha.promotable`.

        Args:
            paused: The rung at which a trial waits, by its number.

        Returns:
            The trial of the deepest rung that has the fewest ahead of it; None where no trial is
            good enough.
        """
        found = []
        for number, k in paused.items():
            if k < -self.before:
                continue  # of a space whose pretrainings had more rungs
            recorded = self._recorded[self._brackets.of(number)][k]
            costs = recorded.get(number)
            others = [row for other, row in sorted(recorded.items()) if other != number]
            known = [each for each in others if each is not None]
            if costs is None or not known:
                continue
            ahead = place_among(np.array(costs, dtype=float), np.array(known, dtype=float))
            if ahead <= len(known) / self.reduction:
                found.append((-k, ahead, number))
        return min(found)[2] if found else None

    def rebuild(self, trials: Iterable[tuple[int, Mapping[int, Sequence[float] | None]]]) -> None:
        """Records objectives from a journal: (trial number, objectives by rung), in any order."""
        for number, rungs in trials:
            for k, costs in rungs.items():
                if -self.before <= k < self.rungs:
                    self.record(number, k, costs, protected=True)


def place_among(costs: Costs, others: Costs) -> int:
    """Returns how many of `others` come ahead of a trial.

    Fronts come one after the other; within a front, see `net_order`. Of equal trials the earlier
    one is ahead.

    Args:
        costs: (M,) objectives of the trial, smaller is better.
        others: (N, M) objectives of the others.
    """
    left = np.vstack([others, costs])
    ranked = 0
    while True:
        front = _front(left)
        if front[-1]:
            order = net_order(left[front])
            return ranked + order.index(int(front.sum()) - 1)
        ranked += int(front.sum())
        left = left[~front]


def net_order(costs: Costs) -> list[int]:
    """Orders a front so that every beginning of the order is spread over it.

    The first is the best one in the first objective. Then comes, again and again, the one that is
    farthest from all that have been taken. Objectives have different units, so distances are
    taken after each is scaled to the range 0 to 1 of the front. Ties go to the earlier row.

    Args:
        costs: (N, M) objectives of a front, smaller is better.

    Returns:
        All rows.
    """
    span = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0)
    taken = [int(np.argmin(scaled[:, 0]))]
    nearest = np.linalg.norm(scaled - scaled[taken[0]], axis=1)
    while len(taken) < len(costs):
        nearest[taken[-1]] = -1.0
        following = int(np.argmax(nearest))
        taken.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[following], axis=1))
    return taken


def _front(costs: Costs) -> NDArray[np.bool_]:
    """Returns for each row whether no other one is nowhere worse and somewhere better."""
    # In this order whatever beats a row comes before it.
    places = np.lexsort(costs.T[::-1])
    left = costs[places]
    found = np.zeros(len(costs), dtype=bool)
    while len(left):
        best = left[0]
        found[places[0]] = True
        kept = ~((best <= left).all(axis=1) & (best < left).any(axis=1))
        kept[0] = False
        left, places = left[kept], places[kept]
    return found
