"""First trials of a search with a time budget: their share of it is of the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import TimeBudget, TrialCosts, Watcher
from gsfl_tune.search.costs.time_budget import SearchTime, unlimited
from gsfl_tune.search.costs.time_plan import TimePlan
from tests.search.experiments import experiment, searched
from tests.search.study.test_warm_start import earlier

pytestmark = pytest.mark.usefixtures("ray_of_tests")

# Planned are 20 trials; `search.trials` is a number that no search with a budget reaches.
TRIALS = 20
LIMIT = f"search.trials={unlimited(TRIALS)}"


class Clock(Watcher):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


def begun(
    tried: Experiment, run: RunDirectory, one_slot: Slots, *, trainings: float
) -> tuple[list[str], list[str]]:
    """Begins a search whose time was enough for some trainings and is over: nothing is trained."""
    costs = TrialCosts(train=100, validation=20, classes=21)
    training = costs.seconds(tried.defaults())
    plan = TimePlan(
        budget=1.0, spent=0.0, head_epochs=4, finetune_epochs=0, finalists=1, final_seeds=1,
        training=training, once=0.0, search=1.0, finals=0.0, evidence=0.0, trials=TRIALS, slots=1,
    )  # fmt: skip
    limit = SearchTime(TimeBudget(plan, lambda: 9.0, costs, control="off", retrain=1.0))
    clock = Clock(trainings * training)
    options = {"costs": costs, "limit": limit, "clock": clock, "watchers": [clock]}
    study = searched(tried, run, resources=one_slot, feature_dim=512, **options).study
    return [trial.user_attrs["origin"] for trial in study.trials()], clock.notices


def test_the_published_setting_takes_at_most_a_tenth_of_the_time(
    run: RunDirectory, one_slot: Slots, tmp_path: Path
) -> None:
    origins, notices = begun(experiment(LIMIT), run, one_slot, trainings=5)
    assert origins == ["defaults"]
    assert any(text.startswith("published: it would take 2") for text in notices)
    origins, _ = begun(experiment(LIMIT), RunDirectory(tmp_path / "longer"), one_slot, trainings=50)
    assert origins == ["defaults", "published"]


def test_of_earlier_runs_come_a_tenth_of_the_planned_trials(
    run: RunDirectory, one_slot: Slots, tmp_path: Path
) -> None:
    tried = experiment(f"search.warm_start=[{earlier(tmp_path / 'a')}]", LIMIT)
    origins, _ = begun(tried, run, one_slot, trainings=50)
    assert origins == ["warm_start a#3", "warm_start a#5", "defaults", "published"]
