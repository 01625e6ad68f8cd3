"""Reliable time measurement: repeated until steady, or marked with the disturbance."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gsfl_tune.cores import usable_cores

# Largest difference of the medians of a round's quarters, as a share of the smallest.
STEADY = 0.1
# An unsteady round is repeated until the rounds have taken this many times the time of one.
_PATIENCE = 3
# Cores that others may use beyond the spare ones, as no machine is quite idle.
_SLACK = 0.5
# Error of the system's counters, which tick every 10 ms, in seconds per core.
_TICK = 0.02


@dataclass(frozen=True)
class Timing:
    """Holds the duration of an operation.

    Attributes:
        median: Median in milliseconds over the runs of one round.
        p95: 95th percentile in milliseconds.
        runs: Number of runs.
        spread: Difference of the medians of the measurement's parts, as a share of the smallest.
        others: Number of cores that other processes used meanwhile.
        cores: Number of cores that this process may use.
        reliable: Whether the time was steady and every thread had a core.
    """

    median: float
    p95: float
    runs: int
    spread: float
    others: float
    cores: int
    reliable: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the values that belong beside ``median``, ``p95`` and ``runs``."""
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
    """Times an operation in rounds, until one is steady and other processes leave enough cores.

    Args:
        run: Runs the operation once and returns its milliseconds.
        fewest: Fewest runs of a round.
        most: Most runs of a round.
        seconds: Seconds after which a round ends, once it has the fewest runs.
        threads: CPU threads of the operation.
        others: Starts a count and returns a function for the number of cores that other processes
            have used since; default: `cores_of_others`.
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
        crowded = used + min(threads, usable_cores()) > usable_cores() + _SLACK
        rounds.append((crowded, _spread(_quarters(times)), times, used))
        if not crowded and rounds[-1][1] <= STEADY:
            return _timing(times, rounds[-1][1], used, reliable=True)
        if time.perf_counter() - began >= _PATIENCE * seconds:
            break
    # Disturbances only slow down, so the fastest round is the best estimate.
    fastest = min((times for _, _, times, _ in rounds), key=median)
    spread = _spread([each for _, _, times, _ in rounds for each in _quarters(times)])
    return _timing(fastest, spread, max(used for *_, used in rounds), reliable=False)


def cores_of_others() -> Callable[[], float]:
    """Starts a count; the result returns how many of our cores other processes used since."""
    busy, own, began = _busy(), time.process_time(), time.perf_counter()

    def used() -> float:
        seconds = max(1e-6, time.perf_counter() - began)
        theirs = _busy() - busy - (time.process_time() - own) - _TICK * usable_cores()
        return min(float(usable_cores()), max(0.0, theirs / seconds))

    return used


def _busy() -> float:
    """Returns the seconds that this process' cores were busy since the machine started."""
    import psutil

    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    total = 0.0
    for number, each in enumerate(psutil.cpu_times(percpu=True)):
        if ours is None or number in ours:
            # `user` includes `guest`; `steal` is the time of other virtual machines.
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
        cores=usable_cores(),
        reliable=reliable,
    )
