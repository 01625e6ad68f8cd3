"""Times are repeated until they are steady, or they say that they are not."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import chain, repeat
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from gsfl_tune.cores import usable_cores
from gsfl_tune.training.timing import cores_of_others, measure_time
from tests.waiting import wait_until


def quiet():
    return lambda: 0.0


def scripted(*rounds):
    """Runs of eight that take what is written."""
    times = chain.from_iterable(rounds)
    return lambda: next(times)


def measured(run, others=quiet, seconds=30.0):
    return measure_time(run, fewest=8, most=8, seconds=seconds, threads=1, others=others)


NOISE = [5.0, 5.0, 90.0, 80.0, 5.0, 5.0, 70.0, 90.0]


def test_what_is_steady_is_measured_once():
    found = measured(scripted([5.0, 5.1] * 4))
    assert (found.median, found.runs, found.reliable) == (pytest.approx(5.05), 8, True)


def test_a_disturbed_round_is_repeated():
    found = measured(scripted(NOISE, NOISE, [5.0] * 8))
    assert (found.median, found.spread, found.reliable) == (5.0, 0.0, True)


def test_what_never_gets_steady_is_marked_with_its_spread():
    found = measured(scripted(NOISE, repeat(1.0)), seconds=0.0)
    assert not found.reliable
    assert found.spread == pytest.approx(16.0)
    assert found.runs == 8


def test_of_rounds_that_were_all_disturbed_the_fastest_counts(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("gsfl_tune.training.timing.time", clock)
    loads = iter([1.0, 3.0, 2.0])
    rounds = scripted([40.0] * 8, [20.0] * 8, [30.0] * 8)

    def others():
        load = next(loads) * usable_cores()
        if load == 2.0 * usable_cores():
            # The time that there is for it is over.
            clock.now = 0.05
        return lambda: load

    found = measured(rounds, others, seconds=0.01)
    assert (found.median, found.reliable) == (20.0, False)
    assert found.spread == 1.0
    assert found.others == 3.0 * usable_cores()


def test_a_steady_time_on_a_machine_whose_cores_are_taken_is_no_fact():
    found = measured(scripted([1907.0] * 8), lambda: lambda: float(usable_cores()), seconds=0.0)
    assert (found.median, found.spread, found.reliable) == (1907.0, 0.0, False)


@pytest.fixture
def burning():
    """Twice as many busy processes as there are cores."""
    program = "print('on', flush=True)\nwhile True: pass"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        for _ in range(2 * usable_cores())
    ]
    for each in started:
        assert each.stdout is not None
        each.stdout.readline()
    yield [psutil.Process(each.pid) for each in started]
    for each in started:
        each.kill()
        each.communicate()


def test_other_processes_are_seen(burning):
    matrix = np.ones((200, 200))

    def run():
        began = time.perf_counter()
        matrix @ matrix
        return 1000 * (time.perf_counter() - began)

    found = measure_time(run, fewest=50, most=10**9, seconds=0.5, threads=usable_cores())
    assert not found.reliable
    # They have two thirds of the machine, or more.
    assert 0.4 * usable_cores() < found.others <= usable_cores()
    assert found.cores == usable_cores()


def test_ones_own_threads_are_not_others(burning):
    def burnt():
        return sum(each.cpu_times().user for each in burning)

    # Waiting, we leave all to them; working, we take our share.
    count, before = cores_of_others(), burnt()
    # Many of the 10 ms in which the system counts.
    wait_until(
        lambda: burnt() >= before + 0.4 * usable_cores(), "the others have worked for a while"
    )
    waiting = count()
    count = cores_of_others()
    began = time.perf_counter()
    while time.perf_counter() - began < 0.8:
        pass
    assert count() < waiting
