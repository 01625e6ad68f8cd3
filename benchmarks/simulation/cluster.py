"""A search on a cluster whose nodes die, on a simulated clock.

Workers train trials from rung to rung. At a rung a worker reports to the driver and waits for its
answer; the driver is one server with one queue, and so is the process that proposes trials.
Nodes die at random, with all that runs on them, and are replaced some minutes later; a trial
that was lost goes on from its last checkpoint on the next worker that is free.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.replay.schedulers import SchedulerName
from benchmarks.replay.simulate import Outcome
from benchmarks.replay.spaces import EPOCHS
from benchmarks.simulation.ledger import Ledger
from benchmarks.simulation.sources import Source

HOUR = 3600.0


@dataclass(frozen=True)
class Cluster:
    """The machines; times in seconds.

    Attributes:
        workers: Trials at once.
        node_workers: Workers of a node.
        failures: Deaths of a node per hour.
        replacement: From a node's death until another is there.
        detection: From a node's death until its trials may start elsewhere.
        process: Start of a worker process: imports, data.
        trial: Start of a trial in a process that is there.
        max_failures: Deaths of its node that a trial survives.
    """

    workers: int
    node_workers: int = 8
    failures: float = 0.0
    replacement: float = 300.0
    detection: float = 10.0
    process: float = 5.0
    trial: float = 0.15
    max_failures: int = 100


@dataclass(frozen=True)
class Saving:
    """When trials write checkpoints.

    Attributes:
        policy: ``none``; ``rungs`` (at every rung and nowhere else); ``product`` (at every rung,
            and at the first end of an epoch that is `every` seconds or more after the last time).
        cost: Seconds that a checkpoint takes.
        every: Seconds between checkpoints.
    """

    policy: Literal["none", "rungs", "product"] = "product"
    cost: float = 0.0
    every: float = 20.0


@dataclass(frozen=True)
class Driver:
    """What the driver takes; seconds.

    Attributes:
        result: Of a result.
        trial: Of a trial that is handed out.
        proposal: Of the process that proposes; it begins when the trial before is handed out.
    """

    result: float = 0.0
    trial: float = 0.0
    proposal: float = 0.0


@dataclass(eq=False)
class _Trial:
    number: int
    outcome: Outcome
    seconds: float
    rung: int = 0
    epoch: int = 0
    saved: int = 0
    since: int = 0
    reported: int = 0
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """One worker; `ready`, `begun` and `end` are times of the stretch under way: the driver has
    answered, training begins, the rung is reached.
    """

    node: int
    up: bool = True
    fresh: bool = True
    trial: _Trial | None = None
    token: int = 0
    asked: float = 0.0
    ready: float = 0.0
    begun: float = 0.0
    end: float = 0.0


def simulate(
    cluster: Cluster,
    saving: Saving,
    driver: Driver,
    source: Source,
    scheduler: SchedulerName,
    *,
    trials: int,
    epoch_seconds: float,
    seed: int,
) -> Ledger:
    """Runs a search; the same arguments give the same ledger.

    Args:
        cluster: The machines.
        saving: When trials save.
        driver: What the driver takes.
        source: Who proposes, and what training would give.
        scheduler: Who stops trials.
        trials: Trials of the search.
        epoch_seconds: Seconds of an average epoch.
        seed: Of the deaths and of the scheduler's brackets.
    """
    search = _Search(cluster, saving, driver, source, scheduler, trials, epoch_seconds, seed)
    return search.run()


class _Search:
    def __init__(
        self,
        cluster: Cluster,
        saving: Saving,
        driver: Driver,
        source: Source,
        scheduler: SchedulerName,
        trials: int,
        epoch_seconds: float,
        seed: int,
    ) -> None:
        self._cluster = cluster
        self._saving = saving
        self._driver = driver
        self._source = source
        self._scheduler = scheduler.create(seed)
        self._rungs = self._scheduler.rungs
        self._trials = trials
        self._epoch_seconds = epoch_seconds
        self._rng = np.random.default_rng([seed, 1])
        size = min(cluster.node_workers, cluster.workers)
        self._workers = [_Worker(number // size) for number in range(cluster.workers)]
        self._nodes = [
            [w for w in self._workers if w.node == node]
            for node in range(-(-cluster.workers // size))
        ]
        self._idle: list[_Worker] = []
        self._pending: list[tuple[int, _Trial]] = []
        self._events: list[tuple[float, int, str, object, int]] = []
        self._order = 0
        self._created = 0
        self._live = 0
        self._driver_free = 0.0
        self._proposal = 0.0
        self._up = cluster.workers
        self._paid_at = 0.0
        self.ledger = Ledger()

    def run(self) -> Ledger:
        for node in range(len(self._nodes)):
            self._live_until(0.0, node)
        for worker in self._workers:
            self._assign(worker, 0.0)
        now = 0.0
        while self._live or self._created < self._trials:
            now, _, kind, what, token = heapq.heappop(self._events)
            if kind == "rung":
                assert isinstance(what, _Worker)
                if what.token == token:
                    self._at_rung(what, now)
            elif kind == "death":
                self._death(token, now)
            elif kind == "node":
                self._node(token, now)
            else:
                assert isinstance(what, _Trial)
                self._wait(what, now)
        self._pay(now)
        self.ledger.duration = now
        return self.ledger

    # --- events ---------------------------------------------------------------------------

    def _at_rung(self, worker: _Worker, now: float) -> None:
        trial = worker.trial
        assert trial is not None
        self._account(worker, trial, now)
        k = trial.rung
        epoch = self._rungs[k]
        trial.epoch, trial.rung = epoch, k + 1
        value = float(trial.outcome.curve[epoch - 1])
        self.ledger.results += 1
        answered = self._serve(now, self._driver.result)
        if k >= trial.reported:
            trial.reported = k + 1
            self._source.report(trial.number, k, value)
        stops = self._scheduler.record(trial.number, k, value, protected=trial.number == 0)
        if k == len(self._rungs) - 1:
            self._pay(now)
            self.ledger.ends.append((now, self.ledger.paid, value, trial.outcome.truth))
            self._source.finish(trial.number, value)
        elif stops:
            self._source.stop(trial.number, value)
        else:
            self._train(worker, trial, asked=now, ready=answered, start=0.0)
            return
        worker.trial = None
        self._live -= 1
        self._assign(worker, now)

    def _death(self, node: int, now: float) -> None:
        self.ledger.deaths += 1
        self._pay(now)
        for worker in self._nodes[node]:
            worker.up = False
            worker.token += 1
            self._up -= 1
            trial, worker.trial = worker.trial, None
            if trial is None:
                self._idle.remove(worker)
                continue
            self._account(worker, trial, now, lost=True)
            trial.deaths += 1
            if trial.deaths > self._cluster.max_failures:
                self.ledger.failed += 1
                self._source.fail(trial.number)
                self._live -= 1
            else:
                self._schedule(now + self._cluster.detection, "lost", trial)
        self._schedule(now + self._cluster.replacement, "node", None, node)

    def _node(self, node: int, now: float) -> None:
        self._pay(now)
        self._up += len(self._nodes[node])
        self._live_until(now, node)
        for worker in self._nodes[node]:
            worker.up = worker.fresh = True
            self._assign(worker, now)

    def _wait(self, trial: _Trial, now: float) -> None:
        heapq.heappush(self._pending, (trial.number, trial))
        if self._idle:
            self._assign(self._idle.pop(), now)

    # --- trials ---------------------------------------------------------------------------

    def _assign(self, worker: _Worker, now: float) -> None:
        cluster = self._cluster
        if self._pending:
            trial = heapq.heappop(self._pending)[1]
            # What it had reported before its checkpoint, it reports again.
            service = self._driver.trial + trial.rung * self._driver.result
            ready = self._serve(now, service)
        elif self._created < self._trials and self._live < cluster.workers:
            number, outcome = self._source.take()
            self._created += 1
            self._live += 1
            seconds = outcome.epoch_time * EPOCHS * self._epoch_seconds
            trial = _Trial(number, outcome, seconds)
            # The driver waits with everything else for a proposal that is not there yet.
            self._driver_free = max(now, self._driver_free, self._proposal)
            ready = self._serve(now, self._driver.trial)
            self._proposal = ready + self._driver.proposal
        else:
            self._idle.append(worker)
            return
        start = cluster.process if worker.fresh else cluster.trial
        worker.fresh = False
        worker.trial = trial
        self._train(worker, trial, asked=now, ready=ready, start=start)

    def _train(
        self, worker: _Worker, trial: _Trial, *, asked: float, ready: float, start: float
    ) -> None:
        epochs = self._rungs[trial.rung] - trial.epoch
        worker.asked, worker.ready, worker.begun = asked, ready, ready + start
        worker.end = worker.begun + epochs * trial.seconds
        worker.end += self._saves(trial, epochs) * self._saving.cost
        worker.token += 1
        self._schedule(worker.end, "rung", worker, worker.token)

    def _saves(self, trial: _Trial, epochs: int) -> int:
        """Checkpoints in so many epochs from where the trial is."""
        if self._saving.policy == "none":
            return 0
        ends = trial.epoch + epochs == self._rungs[trial.rung]
        if self._saving.policy == "rungs":
            return int(ends)
        whole, rest = divmod(trial.since + epochs, self._period(trial))
        return whole + int(ends and rest > 0)

    def _period(self, trial: _Trial) -> int:
        return max(1, math.ceil(self._saving.every / trial.seconds - 1e-9))

    def _account(self, worker: _Worker, trial: _Trial, now: float, *, lost: bool = False) -> None:
        """Books a stretch that ended, or was cut off; moves the trial to where it can go on."""
        book, cost = self.ledger, self._saving.cost
        book.waiting += min(now, worker.ready) - worker.asked
        book.starting += max(0.0, min(now, worker.begun) - worker.ready)
        whole = self._rungs[trial.rung] - trial.epoch
        done, saves = whole, self._saves(trial, whole)
        time = max(0.0, min(now, worker.end) - worker.begun)
        if lost:
            done = saves = 0
            while done < whole:
                following = self._saves(trial, done + 1)
                if (done + 1) * trial.seconds + following * cost > time:
                    break
                done, saves = done + 1, following
        training = time - saves * cost
        book.saving += saves * cost
        book.training += training
        self._note_saves(trial, done, saves)
        if lost:
            # Epochs after the last checkpoint, and the one that was under way.
            book.lost += (trial.epoch + done - trial.saved) * trial.seconds
            book.lost += training - done * trial.seconds
            trial.epoch, trial.since = trial.saved, 0
            trial.rung = sum(rung <= trial.saved for rung in self._rungs)

    def _note_saves(self, trial: _Trial, done: int, saves: int) -> None:
        ends = trial.epoch + done == self._rungs[trial.rung]
        trial.since = 0 if ends else (trial.since + done) % self._period(trial)
        if saves:
            rest = trial.since if self._saving.policy == "product" else 0
            trial.saved = trial.epoch + done - rest

    # --- machines -------------------------------------------------------------------------

    def _serve(self, now: float, seconds: float) -> float:
        """When the driver has done something that takes it so long."""
        self._driver_free = max(now, self._driver_free) + seconds
        self.ledger.driver += seconds
        return self._driver_free

    def _live_until(self, now: float, node: int) -> None:
        if self._cluster.failures > 0:
            life = float(self._rng.exponential(HOUR / self._cluster.failures))
            self._schedule(now + life, "death", None, node)

    def _pay(self, now: float) -> None:
        self.ledger.paid += self._up * (now - self._paid_at)
        self._paid_at = now

    def _schedule(self, time: float, kind: str, what: object, token: int = 0) -> None:
        heapq.heappush(self._events, (time, self._order, kind, what, token))
        self._order += 1
