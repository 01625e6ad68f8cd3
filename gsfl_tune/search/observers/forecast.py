"""Forecasts of the remaining time, from the costs of the actual trials and trainings."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.costs.time_plan import SURVIVING
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Said, States, Watcher
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.timeline import Timeline

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

# Weight, in trials, of the assumed share of trials that are stopped early.
_PRIOR = 4
# A trial that has outlasted the average continues for half of its remaining time on average.
_OUTLIVED = 0.5
# Trials whose overheads are remembered.
_REMEMBERED = 12
# A process whose start is overdue is expected to take a third of its elapsed time more.
_OVERDUE = 1 / 3
# Weight, in seconds, of the price, until a trial has trained for longer.
_PACE_SECONDS = 25.0
# Beyond this number of trials, the last ones make no difference.
_MANY = 1000


def rest_of(costs: TrialCosts, config: Config, epochs: float, fit: FitOn = "train") -> float:
    """Returns the seconds that are left of a training.

    Args:
        costs: Prices it.
        config: The configuration.
        epochs: Trained epochs, with the fraction of the current one.
        fit: Which images it is trained on.
    """
    whole = int(epochs)
    rest = costs.seconds(config, fit=fit, done=whole)
    share = epochs - whole
    if not share:
        return rest
    return rest - share * (rest - costs.seconds(config, fit=fit, done=whole + 1))


@dataclass
class _Flight:
    """Holds a trial or retrain that occupies a slot."""

    since: float
    spoke: float | None = None
    epochs: float = 0.0
    rest: float = 0.0
    # Epochs of its trainings that have ended: reports count those of the present one.
    base: float = 0.0
    # Epochs at its first report, and seconds that it has spent in epochs since.
    first: float | None = None
    busy: float = 0.0
    heard: float | None = None

    def hear(self, said: Said | None, now: float, costs: TrialCosts | None) -> None:
        """Registers a report."""
        if said is None:
            return
        if self.spoke is None:
            self.spoke = now
            if costs is not None:
                costs.note_start(now - self.since)
        if said.epochs is None:
            # Work between epochs says nothing about their speed.
            self.heard = None
        else:
            if self.first is None:
                self.first = self.base + said.epochs
            if self.heard is not None:
                self.busy += now - self.heard
            self.heard = now
            self.epochs = max(self.epochs, self.base + said.epochs)
        self.rest = said.rest or 0.0

    def wait(self, now: float, start: float) -> float:
        """Returns the seconds until it trains: its process starts, or builds what it needs."""
        if self.spoke is None:
            gone = now - self.since
            return max(start - gone, _OVERDUE * gone)
        return self.rest

    def pace(self, rest: Callable[[float], float]) -> float | None:
        """Returns the ratio of its real time to its price; None before it is measurable.

        Prices are corrected only at rungs and ends, but this ratio is updated at every batch. The
        first batches are slow for other reasons, so a pace of 1 counts for some seconds.

        Args:
            rest: Returns the seconds left by its price after a number of trained epochs.
        """
        if self.first is None:
            return None
        priced = rest(self.first) - rest(self.epochs)
        return (self.busy + _PACE_SECONDS) / (priced + _PACE_SECONDS)


@dataclass(kw_only=True)
class _Running(_Flight):
    """Holds a running trial."""

    config: Config
    protected: bool


@dataclass
class StudyForecast(Watcher):
    """Estimates the rest of a study, from the price and the progress of every trial.

    Args:
        costs: Prices trainings, with increasing accuracy.
        configure: Makes a configuration from drawn values.
        typical: Configurations that represent the cost of future trials.
        budget: Number of trials in all.
        slots: Number of parallel trials.
        clock: Returns seconds from any origin.
        replicates: Most trainings of a trial, on other folds or seeds.
    """

    costs: TrialCosts
    configure: Callable[[Mapping[str, Any]], Config]
    typical: Sequence[Config]
    budget: int
    slots: int
    clock: Callable[[], float] = time.monotonic
    replicates: int = 1
    _study: Study | None = None
    _states: States = dict
    _running: dict[int, _Running] = field(default_factory=dict)
    _shares: list[float] = field(default_factory=list)
    _drawn: list[Config] = field(default_factory=list)
    _overheads: list[float] = field(default_factory=list)
    _first_end: float | None = None
    pace: float = 1.0

    def hears(self, states: States) -> None:
        """Stores the source of the trials' progress."""
        self._states = states

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Stores the study."""
        self._study = study

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Registers the price of a trial."""
        assert self._study is not None
        try:
            config = self.configure(params)
        except (UserError, ValueError):
            return  # it fails at once
        protected = bool(self._study.trial(number).user_attrs.get("protected"))
        now = self.clock()
        self._running[number] = _Running(since=now, config=config, protected=protected)
        if not protected:
            self._drawn.append(config)

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """Registers the progress of a trial."""
        trial = self._running.get(int(result.get("trial_number", -1)))
        if trial is not None:
            trial.epochs = max(trial.epochs, float(result.get("epoch", 0.0)))
            if "replicate" in result:
                trial.base = trial.epochs

    def paused(self, number: int) -> None:
        """Learns from a trial that has probably ended."""
        self.ended(number)

    def ended(self, number: int) -> None:
        """Learns the share of a training that trials take, and their overhead."""
        trial = self._running.pop(number, None)
        if trial is None:
            return
        price = self.costs.seconds(trial.config)
        trained, _ = self._progress(trial, trial.epochs)
        begun = trial.since if trial.spoke is None else trial.spoke
        if self._first_end is None:
            self._first_end = self.clock()
        elif trial.since >= self._first_end:
            # The first trials wait for preparation that all trials share.
            overhead = max(0.0, self.clock() - begun - trained)
            self._overheads = [*self._overheads, overhead][-_REMEMBERED:]
        if not trial.protected:
            self._shares.append(min(float(self.replicates), trained / max(price, 1e-9)))

    @property
    def share(self) -> float:
        """Returns the average share of a whole training that a trial takes."""
        return (_PRIOR * SURVIVING + sum(self._shares)) / (_PRIOR + len(self._shares))

    def left(self) -> float:
        """Returns the seconds until the study ends."""
        assert self._study is not None
        now, share, states = self.clock(), self.share, self._states()
        rests, waits = [], []
        paces: list[float | None] = []
        for number, trial in self._running.items():
            trial.hear(states.get(f"trial {number}"), now, self.costs)
            price = self.costs.seconds(trial.config)
            gone, rest = self._progress(trial, trial.epochs)
            if not trial.protected:
                # Whether this trial is stopped early is unknown as well.
                rest = share * price - gone if gone < share * price else _OUTLIVED * rest
            rests.append(rest)
            waits.append(trial.wait(now, self.costs.start))
            paces.append(trial.pace(partial(self._to_come, trial)))
        self.pace = _common(paces)
        rests = [wait + self.pace * rest for wait, rest in zip(waits, rests, strict=True)]
        future = max(0, self.budget - self._study.created())
        each = self._each()
        more = max(0, future - _MANY) * each / self.slots
        return more + makespan(rests, [each] * min(future, _MANY), self.slots)

    def _progress(self, trial: _Running, epochs: float) -> tuple[float, float]:
        """Returns the seconds of the epochs that a trial has trained, and those left of a training.

        Args:
            trial: The trial.
            epochs: Epochs over all of its trainings.
        """
        price = self.costs.seconds(trial.config)
        each = max(1, Timeline.of(trial.config).total)
        ended = min(int(epochs // each), self.replicates - 1)
        rest = rest_of(self.costs, trial.config, epochs - ended * each)
        return (ended + 1) * price - rest, rest

    def _to_come(self, trial: _Running, epochs: float) -> float:
        """Returns what decreases by the price of the epochs that a trial trains."""
        return -self._progress(trial, epochs)[0]

    def whole(self) -> float:
        """Returns the seconds of a study of the same size."""
        return self.budget * self._each() / self.slots

    def winner(self, best: float) -> float:
        """Returns the likely ratio of the final winner's price to that of the best so far.

        It is a geometric mean: the few trainings of one winner are as likely dearer as cheaper,
        and a mean over prices would be that of the dearest.

        Args:
            best: Price of the best so far.
        """
        assert self._study is not None
        ended = self._study.created() - len(self._running)
        share = min(1.0, ended / max(1, self.budget))
        likely = self._price(statistics.geometric_mean)
        return float((likely / max(best, 1e-9)) ** (1 - share))

    def _price(self, mean: Callable[[Sequence[float]], float] = statistics.fmean) -> float:
        """Returns the seconds of a whole training of a future trial."""
        prices = [self.costs.seconds(config) for config in self._drawn[-20:]]
        anywhere = mean([self.costs.seconds(config) for config in self.typical])
        return mean([*[anywhere] * _PRIOR, *prices])

    def _each(self) -> float:
        """Returns the seconds of a future trial, which may be stopped early."""
        overhead = statistics.median(self._overheads) if self._overheads else 0.0
        return self.pace * self.share * self._price() + overhead


@dataclass
class JobsForecast:
    """Estimates the rest of trainings that are not stopped early.

    Args:
        seconds: Returns what is left of a job, by name and number of trained epochs.
        slots: Number of parallel jobs.
        waiting: Names of jobs without a slot, in order.
        clock: Returns seconds from any origin.
        states: Source of the jobs' progress.
        costs: Learns how long processes take to start.
    """

    seconds: Callable[[str, float], float]
    slots: int
    waiting: list[str]
    clock: Callable[[], float] = time.monotonic
    states: States = dict
    costs: TrialCosts | None = None
    pace: float = 1.0
    _flying: dict[str, _Flight] = field(default_factory=dict)

    def started(self, name: str) -> None:
        """Registers that a job has a slot."""
        if name in self.waiting:
            self.waiting.remove(name)
        self._flying[name] = _Flight(self.clock())

    def ended(self, name: str, *, again: bool = False) -> None:
        """Registers that it lost its slot; `again` where it waits for another one."""
        self._flying.pop(name, None)
        if again:
            self.waiting.insert(0, name)

    def left(self) -> float:
        """Returns the seconds until the last job ends; a free slot takes the next job."""
        now, states = self.clock(), self.states()
        start = 0.0 if self.costs is None else self.costs.start
        rests, waits = [], []
        paces: list[float | None] = []
        for name, flight in self._flying.items():
            flight.hear(states.get(name), now, self.costs)
            rests.append(self.seconds(name, flight.epochs))
            waits.append(flight.wait(now, start))
            paces.append(flight.pace(partial(self.seconds, name)))
        self.pace = _common(paces)
        running = [wait + self.pace * rest for wait, rest in zip(waits, rests, strict=True)]
        later = [self.pace * self.seconds(name, 0.0) for name in self.waiting]
        return makespan(running, later, self.slots)


def _common(paces: Iterable[float | None]) -> float:
    """Returns the common pace of the jobs that show one, within bounds."""
    known = [pace for pace in paces if pace is not None]
    return min(20.0, max(0.05, statistics.median(known))) if known else 1.0


def makespan(running: Iterable[float], waiting: Iterable[float], slots: int) -> float:
    """Returns when the last job ends, if slots take jobs in order.

    Args:
        running: Remaining seconds of the running jobs.
        waiting: Seconds of the waiting jobs.
        slots: Number of parallel jobs.
    """
    ends = list(running)
    ends += [0.0] * (slots - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends, default=0.0)
