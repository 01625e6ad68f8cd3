"""Time left counts what is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.forecast import replayed
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import TrialCosts, open_study
from gsfl_tune.search.observers.base import Said
from gsfl_tune.search.observers.forecast import JobsForecast, StudyForecast, makespan, rest_of
from tests.search.experiments import experiment

RECORDED = Path(__file__).parent / "recorded"
# Least share of the time for which the forecast is right: of what a user is told, and without
# evidence and export. Each is a little below what `benchmarks/forecast.py show` prints.
FLOORS = {
    "both_stages": (0.8, 0.5),
    # Others kept this machine busy, and that of `busy_typefaces`.
    "busy_heads": (0.55, 0.75),
    "busy_typefaces": (0.4, 0.85),
    "folds": (0.95, 0.5),
    "matched_control": (0.95, 0.95),
    "photographs": (0.95, 0.9),
    "three_finalists": (0.9, 0.9),
    "three_seeds": (0.85, 0.85),
    "trained_control": (0.8, 0.8),
    "tuned_control": (0.9, 0.8),
    "two_finalists": (0.95, 0.9),
}


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _forecast(
    run: RunDirectory, clock: Time, budget: int, slots: int, images: int = 600
) -> StudyForecast:
    tried = experiment()
    costs = TrialCosts(train=images, validation=100, classes=21)
    forecast = StudyForecast(costs, tried.configure, [tried.defaults()], budget, slots, clock)
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
    """However long it takes: not the time since it began counts, but the epochs that it has."""
    clock = Time()
    forecast = _forecast(run, clock, budget=1, slots=2)
    said: dict[str, Said | None] = {"trial 0": None}
    forecast.hears(lambda: said)
    _start(forecast, protected=True)
    [trial] = forecast._running.values()
    costs = forecast.costs
    price = costs.seconds(trial.config)
    assert forecast.left() == pytest.approx(price + costs.start)
    clock.now = costs.start / 2
    assert forecast.left() == pytest.approx(price + costs.start / 2)
    epochs = trial.config.training.head.epochs
    clock.now, before = 100.0, 0.0
    for done in (epochs / 4, epochs / 2):
        # Epochs take what they cost.
        clock.now += rest_of(costs, trial.config, before) - rest_of(costs, trial.config, done)
        before = done
        said["trial 0"] = Said("head epoch", epochs=done)
        assert forecast.left() == pytest.approx(rest_of(costs, trial.config, done))
    # Outside of epochs it stays where it is, and says itself how long that takes.
    said["trial 0"] = Said("computing features", rest=40.0)
    assert forecast.left() == pytest.approx(rest_of(costs, trial.config, epochs / 2) + 40)


def test_a_combination_that_is_refused_is_no_trial_to_wait_for(run: RunDirectory) -> None:
    tried = experiment(
        "training.head.epochs={choice: [3, 0]}", "training.finetune.epochs={choice: [2, 0]}"
    )
    costs = TrialCosts(train=600, validation=100, classes=21)
    forecast = StudyForecast(costs, tried.configure, [tried.defaults()], 4, 1, Time())
    study = open_study(tried, run)
    forecast.begin(study, 4, 1)
    nothing = {"training.head.epochs": 0, "training.finetune.epochs": 0}
    study.enqueue({**tried.default_params(), **nothing}, "enqueue[0]")
    asked = study.ask()
    assert asked is not None
    forecast.started(asked.number, asked.params, again=False)
    assert not forecast._running


def test_the_share_of_an_epoch_counts() -> None:
    config = experiment("training.finetune.epochs=2").defaults()
    costs = TrialCosts(train=600, validation=100, classes=21)
    rests = [rest_of(costs, config, epochs) for epochs in (1, 1.5, 2, 4, 4.25, 5, 6)]
    assert rests == sorted(rests, reverse=True)
    assert rests[1] == pytest.approx((rests[0] + rests[2]) / 2)
    assert rests[4] == pytest.approx(0.75 * rests[3] + 0.25 * rests[5])
    assert rests[-1] == 0


def test_processes_that_took_long_to_start_will_again(run: RunDirectory) -> None:
    clock = Time()
    forecast = _forecast(run, clock, budget=1, slots=1)
    said: dict[str, Said | None] = {"trial 0": None}
    forecast.hears(lambda: said)
    _start(forecast)
    before = forecast.costs.start
    clock.now = 20.0
    said["trial 0"] = Said("loading")
    forecast.left()
    assert forecast.costs.start == 20 > before


def test_trials_that_are_stopped_early_make_the_rest_shorter(run: RunDirectory) -> None:
    clock = Time()
    forecast = _forecast(run, clock, budget=100, slots=1, images=10**6)
    before = forecast.left()
    assert forecast._study is not None
    for _ in range(10):
        number = _start(forecast)
        config = forecast._running[number].config
        clock.now += forecast.costs.until(config, 1)
        forecast.occupied({"trial_number": number, "epoch": 1}, 0.0)
        forecast._study.prune(number, 1.0, 0)
        forecast.ended(number)
    assert forecast.share < 0.4
    assert forecast.left() < before


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_time_left_is_right_within_a_factor_for_most_of_a_recorded_search(name: str) -> None:
    """Searches that were recorded (`benchmarks/forecast.py`), forecast again by this version.

    What a user is told counts evidence and export in. Others kept the machine of two recordings
    busy: their evidence took three times what it takes on an idle one, which is its price.
    """
    told = replayed(json.loads((RECORDED / f"{name}.json").read_text()))
    assert len(told) > 60
    whole, trained = FLOORS[name]
    assert sum(each.good for each in told) / len(told) >= whole
    assert sum(each.good_of_trainings for each in told) / len(told) >= trained


def test_jobs_take_the_slots_that_come_free() -> None:
    assert makespan([], [3, 3, 3], 2) == 6
    assert makespan([5, 1], [3, 3], 2) == 7
    assert makespan([], [], 4) == 0
    clock = Time()
    seconds = {"a": 10.0, "b": 20.0, "c": 10.0}
    said: dict[str, Said | None] = {}

    def rest(name: str, epochs: float) -> float:
        return seconds[name] * (1 - epochs / 10)

    forecast = JobsForecast(rest, 2, ["a", "b", "c"], clock, lambda: said)
    assert forecast.left() == 20
    forecast.started("a")
    forecast.started("b")
    said |= {"a": Said("", 9.0), "b": Said("", 5.0)}
    assert forecast.left() == 11
    forecast.ended("a")
    forecast.started("c")
    clock.now += 5  # a quarter of b
    said |= {"b": Said("", 7.5), "c": Said("", 5.0)}
    assert forecast.left() == 5
    forecast.ended("b", again=True)
    assert forecast.left() == 20


def test_further_trainings_of_a_trial_count_on_from_the_ones_before(run: RunDirectory) -> None:
    clock = Time()
    forecast = _forecast(run, clock, budget=1, slots=1)
    forecast.replicates = 3
    said: dict[str, Said | None] = {"trial 0": None}
    forecast.hears(lambda: said)
    number = _start(forecast)
    [trial] = forecast._running.values()
    price = forecast.costs.seconds(trial.config)
    epochs = 4  # of a training
    forecast.occupied({"trial_number": number, "epoch": epochs, "replicate": "{}"}, 0.0)
    assert trial.base == epochs
    said["trial 0"] = Said("head epoch 3/4", 2.0)
    forecast.left()
    assert trial.epochs == epochs + 2
    gone, rest = forecast._progress(trial, trial.epochs)
    assert price < gone < 2 * price
    assert gone + rest == pytest.approx(2 * price)
    forecast.occupied({"trial_number": number, "epoch": 3 * epochs, "replicate": "{}"}, 0.0)
    forecast.ended(number)
    assert forecast._shares == [pytest.approx(3.0)]
