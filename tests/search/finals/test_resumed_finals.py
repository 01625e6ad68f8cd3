"""Finals that a resume continues when the time of the budget is over: what is trained counts."""

from __future__ import annotations

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory, write_json
from gsfl_tune.search import Candidate, Job, Retraining, TimeBudget, TrialCosts, best
from gsfl_tune.search.costs.time_plan import TimePlan
from tests.search.experiments import context, experiment

pytestmark = pytest.mark.usefixtures("ray_of_tests")

CONFIG = experiment("model.head=gsfl", "search.metric=validation/accuracy").defaults()
CANDIDATES = [Candidate(f"search-{number}", CONFIG, number) for number in range(3)]


@pytest.fixture
def late(run: RunDirectory, one_slot: Slots) -> Retraining:
    """Finals of a run that has used up its budget, with three finalists and three seeds."""
    plan = TimePlan(
        budget=100.0, spent=0.0, head_epochs=4, finetune_epochs=0, finalists=3, final_seeds=3,
        training=10.0, once=0.0, search=1.0, finals=1.0, evidence=1.0, trials=10, slots=1,
    )  # fmt: skip
    costs = TrialCosts(train=600, validation=100, classes=21)
    budget = TimeBudget(plan, lambda: 200.0, costs, control="matched", retrain=1.0)
    return Retraining(context(run, resources=one_slot), max_failures=0, budget=budget)


def finish(job: Job, accuracy: float) -> None:
    """Leaves what an earlier driver leaves of a training."""
    metrics = {"accuracy": accuracy, "nll": 1.0}
    part = "test" if job.test else "validation"
    job.directory.mkdir(parents=True)
    write_json(job.directory / "result.json", {"epochs": 4, "seconds": 1.0, part: metrics})
    if job.test:
        (job.directory / "checkpoint.pt").touch()


def test_a_race_that_was_decided_has_the_same_winner(late: Retraining) -> None:
    for candidate, accuracy in zip(CANDIDATES, (0.6, 0.8, 0.7), strict=True):
        finish(late.jobs(candidate, "train")[0], accuracy)
    raced = late.race(CANDIDATES, "race")
    assert [each.score("validation/accuracy") for each in raced] == [0.6, 0.8, 0.7]
    assert best(raced, "validation/accuracy").label == "search-1"


def test_seeds_of_the_race_that_were_trained_count(late: Retraining) -> None:
    pair = CANDIDATES[:2]
    for candidate, accuracies in zip(pair, ((0.8, 0.6), (0.7,)), strict=True):
        for job, accuracy in zip(late.jobs(candidate, "train"), accuracies, strict=False):
            finish(job, accuracy)
    # The second seed of the other one, and every third seed, would have to be trained.
    raced = late.race(pair, "race")
    assert [[row["accuracy"] for row in each.validation] for each in raced] == [[0.8, 0.6], [0.7]]


def test_candidates_that_did_not_start_stay_out(late: Retraining) -> None:
    finish(late.jobs(CANDIDATES[0], "train")[0], 0.5)
    assert [each.label for each in late.race(CANDIDATES, "race")] == ["search-0"]


def test_seeds_that_were_tested_are_not_dropped(late: Retraining) -> None:
    winner = Candidate("search-1", CONFIG, 1, validation=[{"accuracy": 0.8, "nll": 1.0}])
    control = winner.plain()
    accuracies = (0.7, 0.8, 0.9)
    for candidate in (winner, control):
        for job, accuracy in zip(late.jobs(candidate, "train+validation"), accuracies, strict=True):
            finish(job, accuracy)
    finish(late.jobs(control, "train")[0], 0.6)
    concluded = late.conclude(winner, control)
    for candidate in concluded:
        assert candidate is not None
        assert [row["accuracy"] for row in candidate.test] == list(accuracies)
        assert len(candidate.seeds) == 3
