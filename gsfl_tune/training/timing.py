"""Times that can be believed: repeated until steady, or marked with what disturbed them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

# Medians of the quarters of a round may differ by so much of the smallest.
STEADY = 0.1
# A round that was not steady is repeated while the rounds have taken less than so many times the
# time of one.
_PATIENCE = 3
# Cores that others may use beyond those that are left: no machine is quite idle.
_SLACK = 0.5
# The system counts in ticks of 10 ms: what a count may be wrong by, seconds a core.
_TICK = 0.02


@dataclass(frozen=True)
class Timing:
    """How long something takes.

    Attributes:
        median: Milliseconds, of the runs of one round.
        p95: Milliseconds; 95 % of these runs took no longer.
        runs: How many there were.
        spread: By how much medians of parts of the measurement differ, a share of the smallest.
        others: Cores that other processes used meanwhile.
        cores: That there are for this process.
        reliable: Whether the time was steady and there was a core for every thread.
    """

    median: float
    p95: float
    runs: int
    spread: float
    others: float
    cores: int
    reliable: bool

    def to_json(self) -> dict[str, Any]:
        """What belongs beside ``median``, ``p95`` and ``runs``."""
        return {
            "spread": round(self.spread, 4),
            "others": round(self.others, 2),
            "cores": self.cores,
            "reliable": self.reliable,
        }


def measure_time(
    run: Callable[[], float],
    *,
    fewest: int,
    most: int,
    seconds: float,
    threads: int,
    others: Callable[[], Callable[[], float]] | None = None,
) -> Timing:
    """Times something in rounds, until one is steady while the machine has cores to spare.

    Args:
        run: Does it once and returns the milliseconds.
        fewest: Runs of a round, at least.
        most: Runs of a round, at most.
        seconds: After which a round makes no more than the fewest runs.
        threads: That it computes with on the CPU.
        others: Starts to count, and returns what tells how many cores other processes used since;
            default: `cores_of_others`.
    """
    rounds: list[tuple[bool, float, list[float], float]] = []
    began = time.perf_counter()
    while True:
        times: list[float] = []
        started = time.perf_counter()
        count = (others or cores_of_others)()
        while len(times) < fewest or (
            len(times) < most and time.perf_counter() - started < seconds
        ):
            times.append(run())
        used = count()
        crowded = used + min(threads, cores()) > cores() + _SLACK
        rounds.append((crowded, _spread(_quarters(times)), times, used))
        if not crowded and rounds[-1][1] <= STEADY:
            return _timing(times, rounds[-1][1], used, reliable=True)
        if time.perf_counter() - began >= _PATIENCE * seconds:
            break
    # What disturbs makes slower: the fastest round comes nearest.
    fastest = min((times for _, _, times, _ in rounds), key=median)
    spread = _spread([each for _, _, times, _ in rounds for each in _quarters(times)])
    return _timing(fastest, spread, max(used for *_, used in rounds), reliable=False)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_others() -> Callable[[], float]:
    """Starts to count; the result tells how many of our cores other processes used since."""
    busy, own, began = _busy(), time.process_time(), time.perf_counter()

    def used() -> float:
        seconds = max(1e-6, time.perf_counter() - began)
        theirs = _busy() - busy - (time.process_time() - own) - _TICK * cores()
        return min(float(cores()), max(0.0, theirs / seconds))

    return used


def _busy() -> float:
    """Seconds that the cores of this process were busy since the machine was started."""
    import psutil

    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    total = 0.0
    for number, each in enumerate(psutil.cpu_times(percpu=True)):
        if ours is None or number in ours:
            # `guest` is part of `user`, `steal` is what other virtual machines took.
            idle = ("idle", "iowait", "guest", "guest_nice")
            total += sum(value for name, value in each._asdict().items() if name not in idle)
    return total


def _quarters(times: list[float]) -> list[float]:
    return [float(np.median(each)) for each in np.array_split(times, 4) if len(each)]


def _spread(medians: list[float]) -> float:
    return (max(medians) - min(medians)) / max(1e-9, min(medians))


def _timing(times: list[float], spread: float, used: float, *, reliable: bool) -> Timing:
    return Timing(
        median=float(np.median(times)),
        p95=float(np.percentile(times, 95)),
        runs=len(times),
        spread=spread,
        others=used,
        cores=cores(),
        reliable=reliable,
    )
