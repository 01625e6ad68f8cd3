"""The time until the tested bundle has all later phases in it."""

from __future__ import annotations

from typing import Any

import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Job, TrialCosts, Watcher, open_study
from gsfl_tune.search.observers.time_left import (
    after_jobs,
    after_search,
    leading,
    of_jobs,
    of_study,
    typical,
)
from tests.search.experiments import experiment

ALONE = ("search.finalists=1", "search.final_seeds=1", "search.control=off")


@pytest.fixture
def costs() -> TrialCosts:
    return TrialCosts(train=600, validation=100, classes=21)


def _config(*overrides: str) -> Config:
    return experiment("model.head=gsfl", "model.groups.count=2", *overrides).defaults()


def _jobs(run: RunDirectory, count: int, **options: Any) -> list[Job]:
    config = _config("search.final_seeds=3", "search.finalists=2")
    return [
        Job(name=f"seed {seed}", config=config, seed=seed, directory=run.finals / "x", **options)
        for seed in range(count)
    ]


def test_after_a_search_without_race_and_control_come_two_trainings_and_the_evidence(
    costs: TrialCosts,
) -> None:
    """One with the validation images and one without, after two starts of a process."""
    config = _config(*ALONE)
    trainings = costs.seconds(config) * (1 + 700 / 600)
    expected = trainings + 2 * costs.start + costs.evidence(config)
    assert after_search(costs, config, 1) == pytest.approx(expected)
    # Trainings that take twice their price do so later too; the evidence does not.
    assert after_search(costs, config, 1, 2.0) == pytest.approx(expected + trainings)


def test_whatever_a_run_does_more_takes_longer_and_slots_help(costs: TrialCosts) -> None:
    wishes = [
        ALONE,
        ("search.finalists=1", "search.final_seeds=2", "search.control=off"),
        ("search.finalists=3", "search.final_seeds=2", "search.control=off"),
        ("search.finalists=3", "search.final_seeds=2", "search.control=matched"),
        ("search.finalists=3", "search.final_seeds=2", "search.control=tuned"),
    ]
    found = [after_search(costs, _config(*each), 1) for each in wishes]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert after_search(costs, _config(*wishes[-1]), 4) < found[-1]


def test_a_race_costs_what_its_finalists_do(costs: TrialCosts) -> None:
    race = ("search.finalists=3", "search.final_seeds=3", "search.control=off")
    config = _config(*race)
    small, large = (_config(*race, f"model.latent_dim={size}") for size in (8, 4096))
    alike = after_search(costs, config, 1)
    # Whoever is not known yet costs as much as the best; a fourth one does not race.
    assert after_search(costs, config, 1, finalists=[config]) == pytest.approx(alike)
    rivals = [config, small, small, large]
    saved = 3 * 2 / 3 * 2 * (costs.seconds(config) - costs.seconds(small))
    assert after_search(costs, config, 1, finalists=rivals) == pytest.approx(alike - saved)
    assert saved > 0


def test_the_best_complete_trials_lead(run: RunDirectory) -> None:
    tried = experiment("search.metric=validation/accuracy", "search.finalists=2")
    study = open_study(tried, run)
    found = leading(study, tried)
    assert found() == []
    for value in (0.5, 0.9, 0.7):
        asked = study.ask()
        assert asked is not None
        study.report(asked.number, 0, value)
        study.complete(asked.number, value)
        if value == 0.5:
            assert found() == [tried.configure(asked.params)]
    best = [trial.number for trial in study.ranking()][:2]
    assert best == [1, 2]
    assert found() == [tried.configure(study.trial(number).params) for number in best]


def test_after_the_retrains_comes_the_evidence_alone(costs: TrialCosts, run: RunDirectory) -> None:
    last = _jobs(run, 3, fit="train+validation", test=True)
    config = last[0].config
    evidence = costs.evidence(config, seeds=3, slots=1)
    assert after_jobs(costs, last, 1) == pytest.approx(evidence)
    # After a race each of the winner's seeds is trained again.
    race = _jobs(run, 2)
    least = evidence + costs.start + 3 * costs.seconds(config) * costs.retrain
    assert after_jobs(costs, race, 1) > least - 1e-6


def test_a_race_may_go_on_with_further_seeds_and_any_of_them_may_win(
    costs: TrialCosts, run: RunDirectory
) -> None:
    race = ("search.finalists=2", "search.final_seeds=3")
    small, large = (_config(*race, f"model.latent_dim={size}") for size in (8, 4096))

    def job(config: Config, label: str, seed: int) -> Job:
        folder = run.finals / label / "validate" / f"seed-{seed}"
        return Job(name=f"{label} seed {seed}", config=config, seed=seed, directory=folder)

    def left(seed: int) -> float:
        return after_jobs(costs, [job(small, "a", seed), job(large, "b", seed)], 1)

    # With the first seed done, one more round is likely: none, or two.
    further = costs.seconds(small) + costs.seconds(large) + costs.start
    assert left(1) - left(3) == pytest.approx(further)
    assert left(2) - left(3) == pytest.approx(further / 2)
    alone = [after_jobs(costs, [job(each, "a", 3)], 1) for each in (small, large)]
    assert left(3) == pytest.approx(sum(alone) / 2)
    assert alone[0] < alone[1]


def test_a_sample_of_the_space_is_the_same_each_time_and_has_all_of_it() -> None:
    found = typical(experiment())
    assert typical(experiment()) == found
    assert len(found) == 16
    assert {config.model.head for config in found} == {"gsfl", "plain"}
    assert len({config.training.head.learning_rate for config in found}) == 16
    # Where only some fit, those; where there is nothing to draw, the defaults.
    assert typical(experiment(), count=0) == [experiment().defaults()]


def test_without_prices_nothing_is_said() -> None:
    watcher, left = of_study(experiment(), "search", None, None, budget=8, slots=1, best=list)
    assert left is None
    assert type(watcher) is Watcher


def test_a_study_counts_its_trials_the_control_after_it_and_the_end(
    costs: TrialCosts, run: RunDirectory
) -> None:
    def left(budget: int, control: str, name: Any = "search") -> float:
        tried = experiment(f"search.control={control}")
        watcher, found = of_study(tried, name, costs, None, budget=budget, slots=1, best=list)
        watcher.begin(open_study(tried, RunDirectory(run.path / control)), budget, 1)
        assert found is not None
        return found()

    few, many = left(4, "matched"), left(8, "matched")
    assert many > few > after_search(costs, experiment("search.control=matched").defaults(), 1)
    # The search of a tuned control begins when this one ends, and none follows it.
    assert left(4, "tuned") > left(4, "tuned", "control")


def test_jobs_that_end_leave_less_and_at_last_the_rest_of_the_run(
    costs: TrialCosts, run: RunDirectory
) -> None:
    jobs = _jobs(run, 3, fit="train+validation", test=True)
    forecast, left = of_jobs(jobs, [1, 2], costs, 1)
    price = costs.seconds(jobs[0].config, fit="train+validation")
    rest = after_jobs(costs, jobs, 1)
    assert left() == pytest.approx(2 * price + rest)
    forecast.started("seed 1")
    forecast.ended("seed 1")
    assert left() == pytest.approx(price + rest)
    forecast.started("seed 2")
    forecast.ended("seed 2")
    assert left() == pytest.approx(rest)


@pytest.mark.parametrize("fit", ["train", "train+validation"])
def test_a_retrain_answers_in_fp32_before_its_slot_is_free(run: RunDirectory, fit: Any) -> None:
    costs = TrialCosts(train=600, validation=100, classes=21, test=1000)
    stages = ("training.finetune.epochs=2", "search.finalists=1", "search.final_seeds=1")

    def left(precision: str) -> tuple[float, float]:
        config = _config(*stages, f"training.precision={precision}")
        job = Job(name="seed 1", config=config, seed=1, directory=run.finals / "x", fit=fit)
        _, found = of_jobs([job], [0], costs, 1)
        return found() - after_jobs(costs, [job], 1), costs.answers(config, fit)

    (low, answers), (full, none) = left("bf16"), left("fp32")
    assert answers > none == 0
    assert low - full == pytest.approx(answers)
    # Before them a search counts them in too: with a winner's validation and test, and a control's.
    config, exact = (_config(*stages, f"training.precision={each}") for each in ("bf16", "fp32"))
    both = costs.answers(config) + costs.answers(config, "train+validation")
    rest = after_search(costs, config, 1) - after_search(costs, exact, 1)
    assert rest == pytest.approx(2 * both)
