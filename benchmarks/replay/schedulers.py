"""Who stops trials in the simulation: nobody, the median rule, or the project's own `Asha`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.replay.spaces import EPOCHS
from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.training.timeline import Timeline


class Scheduler(Protocol):
    """Looks at a trial at its rungs.

    Attributes:
        rungs: Epochs of the rungs; the last is the end.
    """

    rungs: list[int]

    def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
        """Whether the trial stops at rung `k`."""

    def promotable(self, paused: Mapping[int, int]) -> int | None:
        """The paused trial that continues, by the rungs of all paused ones."""


class Final:
    """What is stopped has ended."""

    def promotable(self, paused: Mapping[int, int]) -> int | None:
        return None


class Nobody(Final):
    """Every trial goes to its end."""

    def __init__(self) -> None:
        self.rungs = [EPOCHS]

    def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
        return False


class Median(Final):
    """Ray's ``MedianStoppingRule``, after every epoch.

    A trial stops when its best value so far is below the median of the means (up to the same
    epoch) of the other trials that came as far.
    """

    def __init__(self, grace: int = 3, fewest: int = 3) -> None:
        self.rungs = list(range(1, EPOCHS + 1))
        self._grace = grace
        self._fewest = fewest
        self._values: dict[int, list[float]] = {}

    def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
        own = self._values.setdefault(number, [])
        own.append(value)
        epoch = k + 1
        if protected or not self._grace <= epoch < EPOCHS:
            return False
        others = [
            float(np.mean(values[:epoch]))
            for other, values in self._values.items()
            if other != number and len(values) >= epoch
        ]
        return len(others) >= self._fewest and max(own) < float(np.median(others))


class Halving:
    """Asynchronous successive halving at the rungs that the product would have."""

    def __init__(self, grace: int, reduction: int, brackets: int, seed: int) -> None:
        timeline = Timeline((EPOCHS, 0))
        rungs = timeline.rungs(timeline, grace=grace, reduction=reduction)
        self.rungs = [rung.epoch for rung in rungs]
        self._asha = Asha(len(rungs), reduction=reduction, brackets=brackets, seed=seed)

    def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
        return self._asha.record(number, k, value, protected=protected)

    def promotable(self, paused: Mapping[int, int]) -> int | None:
        return self._asha.promotable(paused)


@dataclass(frozen=True)
class SchedulerName:
    """A scheduler with its settings; `text` is what tables call it."""

    kind: str
    grace: int = 0
    reduction: int = 0
    brackets: int = 1

    @property
    def text(self) -> str:
        if self.kind != "asha":
            return self.kind
        brackets = f" brackets {self.brackets}" if self.brackets > 1 else ""
        return f"asha grace {self.grace} reduction {self.reduction}{brackets}"

    def create(self, seed: int) -> Scheduler:
        if self.kind == "none":
            return Nobody()
        if self.kind == "median":
            return Median()
        return Halving(self.grace, self.reduction, self.brackets, seed)


NONE = SchedulerName("none")
MEDIAN = SchedulerName("median")
ASHA = [SchedulerName("asha", grace, red) for red in (2, 3, 4) for grace in (1, 3, 5)]
# Hyperband's brackets, run as Ray runs them: all at once, each an ASHA of its own.
HYPERBAND = [
    SchedulerName("asha", 1, 3, 3),
    SchedulerName("asha", 3, 3, 2),
    SchedulerName("asha", 3, 3, 3),
]
SCHEDULERS = [NONE, MEDIAN, *ASHA, *HYPERBAND]
