"""Time left counts what is at hand."""

from __future__ import annotations

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import TrialCosts, open_study
from gsfl_tune.search.forecast import JobsForecast, StudyForecast, makespan
from tests.search.experiments import experiment


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _forecast(run: RunDirectory, clock: Time, budget: int, slots: int) -> StudyForecast:
    tried = experiment()
    costs = TrialCosts(train=600, validation=100, classes=21)
    forecast = StudyForecast(costs, tried.configure, tried.defaults(), budget, slots, clock)
    forecast.begin(open_study(tried, run), budget, slots)
    return forecast


def _start(forecast: StudyForecast, *, protected: bool = False, **params: object) -> int:
    study = forecast._study
    assert study is not None
    if protected:
        study.enqueue({**experiment().default_params(), **params}, "enqueue[0]")
    asked = study.ask()
    assert asked is not None
    forecast.started(asked.number, {**asked.params, **params}, again=False)
    return asked.number


def test_a_dear_trial_that_runs_counts_with_what_is_left_of_it(run: RunDirectory) -> None:
    clock = Time()
    forecast = _forecast(run, clock, budget=1, slots=2)
    _start(forecast, protected=True)
    [trial] = forecast._running.values()
    price = forecast.costs.seconds(trial.config)
    assert forecast.left() == pytest.approx(price)
    clock.now = price / 4
    assert forecast.left() == pytest.approx(0.75 * price)
    clock.now = 10 * price
    assert forecast.left() == 0


def test_trials_that_are_stopped_early_make_the_rest_shorter(run: RunDirectory) -> None:
    clock = Time()
    forecast = _forecast(run, clock, budget=100, slots=1)
    before = forecast.left()
    assert forecast._study is not None
    for _ in range(10):
        number = _start(forecast)
        price = forecast.costs.seconds(forecast._running[number].config)
        clock.now += 0.05 * price
        forecast._study.prune(number, 1.0, 0)
        forecast.ended(number)
    assert forecast.share < 0.2
    assert forecast.left() < 0.5 * before


def test_time_left_is_right_within_a_factor_for_most_of_a_played_search(run: RunDirectory) -> None:
    """Trials of a known share of their price, one after the other."""
    clock = Time()
    forecast = _forecast(run, clock, budget=30, slots=1)
    assert forecast._study is not None
    told: list[tuple[float, float]] = []
    for number in range(30):
        _start(forecast)
        told.append((clock.now, forecast.left()))
        price = forecast.costs.seconds(forecast._running[number].config)
        clock.now += price * (1.0 if number % 4 == 0 else 0.2)
        forecast._study.prune(number, 1.0, 0)
        forecast.ended(number)
    end = clock.now
    good = [1 / 1.5 <= left / (end - at) <= 1.5 for at, left in told]
    assert sum(good) / len(good) >= 0.8


def test_jobs_take_the_slots_that_come_free() -> None:
    assert makespan([], [3, 3, 3], 2) == 6
    assert makespan([5, 1], [3, 3], 2) == 7
    assert makespan([], [], 4) == 0
    clock = Time()
    seconds = {"a": 10.0, "b": 20.0, "c": 10.0}
    forecast = JobsForecast(seconds.__getitem__, 2, ["a", "b", "c"], clock)
    assert forecast.left() == 20
    forecast.started("a")
    forecast.started("b")
    clock.now = 10
    assert forecast.left() == 10
    forecast.ended("a")
    forecast.started("c")
    clock.now = 15
    assert forecast.left() == 5
    forecast.ended("b", again=True)
    assert forecast.left() == 20


def test_prices_learn_from_what_workers_tell() -> None:
    costs = TrialCosts(train=600, validation=100, classes=21)
    config = experiment().defaults()
    before = costs.seconds(config)
    [work] = costs.work(config)
    slow = 10 * costs.costs.epoch(work)
    costs.observe(config, {"measured": f'{{"head": [2, {2 * slow}]}}', "place_machine": "x"})
    assert costs.costs.epoch(work) == pytest.approx(slow)
    assert costs.seconds(config) - before == pytest.approx(0.9 * slow * work.epochs)
    assert costs.epochs_within(config, costs.until(config, 2)) == 2
