"""How long what is under way will take: the cost of the trials and trainings at hand counts."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gsfl_tune.experiment.config import Config
from gsfl_tune.search.time_plan import SURVIVING
from gsfl_tune.search.trial_costs import TrialCosts
from gsfl_tune.search.watcher import Watcher

if TYPE_CHECKING:
    from gsfl_tune.search.study import Study

# How many trials the assumption of what is stopped early counts for.
_PRIOR = 4.0
# A trial that has outlived what trials take on average goes on for half of its rest, on average.
_OUTLIVED = 0.5


@dataclass
class _Running:
    config: Config
    protected: bool
    since: float


@dataclass
class StudyForecast(Watcher):
    """Estimates what is left of a study, from the price of every trial.

    Args:
        costs: Prices trainings, better and better.
        configure: Makes the configuration of drawn values.
        defaults: The defaults, whose price is that of trials that nobody has drawn yet.
        budget: Trials in all.
        slots: Trials at once.
        clock: Seconds, of any beginning.
    """

    costs: TrialCosts
    configure: Callable[[Mapping[str, Any]], Config]
    defaults: Config
    budget: int
    slots: int
    clock: Callable[[], float] = time.monotonic
    _study: Study | None = None
    _running: dict[int, _Running] = field(default_factory=dict)
    _shares: list[float] = field(default_factory=list)
    _prices: list[float] = field(default_factory=list)

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Notes the study."""
        self._study = study

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Notes what a trial costs."""
        assert self._study is not None
        try:
            config = self.configure(params)
        except ValueError:
            return  # it fails at once
        protected = bool(self._study.trial(number).user_attrs.get("protected"))
        self._running[number] = _Running(config, protected, self.clock())

    def ended(self, number: int) -> None:
        """Learns what share of a training trials take."""
        trial = self._running.pop(number, None)
        if trial is None or trial.protected:
            return
        price = self.costs.seconds(trial.config)
        self._prices.append(price)
        self._shares.append(min(1.0, (self.clock() - trial.since) / max(price, 1e-9)))

    @property
    def share(self) -> float:
        """Share of a whole training that a trial takes on average."""
        return (_PRIOR * SURVIVING + sum(self._shares)) / (_PRIOR + len(self._shares))

    def left(self) -> float:
        """Seconds until the study ends."""
        assert self._study is not None
        now, share = self.clock(), self.share
        running, longest = 0.0, 0.0
        for trial in self._running.values():
            price, gone = self.costs.seconds(trial.config), now - trial.since
            if trial.protected:
                rest = max(0.0, price - gone)
                longest = max(longest, rest)
            elif gone < share * price:
                rest = share * price - gone
            else:
                rest = _OUTLIVED * max(0.0, price - gone)
            running += rest
        future = max(0, self.budget - self._study.created())
        prices = self._prices[-20:] or [self.costs.seconds(self.defaults)]
        total = running + future * share * sum(prices) / len(prices)
        return max(total / self.slots, longest)


@dataclass
class JobsForecast:
    """Estimates what is left of trainings that go to their ends.

    Args:
        seconds: Price of every job, by name.
        slots: Jobs at once.
        clock: Seconds, of any beginning.
    """

    seconds: Callable[[str], float]
    slots: int
    waiting: list[str]
    clock: Callable[[], float] = time.monotonic
    _flying: dict[str, float] = field(default_factory=dict)

    def started(self, name: str) -> None:
        """Notes that a job has a slot."""
        if name in self.waiting:
            self.waiting.remove(name)
        self._flying[name] = self.clock()

    def ended(self, name: str, *, again: bool = False) -> None:
        """Notes that it has none any more."""
        self._flying.pop(name, None)
        if again:
            self.waiting.insert(0, name)

    def left(self) -> float:
        """Seconds until the last one ends: every slot takes the next one when it is free."""
        now = self.clock()
        rests = [max(0.0, self.seconds(n) - (now - since)) for n, since in self._flying.items()]
        return makespan(rests, [self.seconds(name) for name in self.waiting], self.slots)


def makespan(running: Iterable[float], waiting: Iterable[float], slots: int) -> float:
    """When the last of some jobs ends that slots take in order.

    Args:
        running: Seconds that are left of those that have a slot.
        waiting: Seconds of those that wait.
        slots: Jobs at once.
    """
    ends = list(running)
    ends += [0.0] * (slots - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends, default=0.0)
