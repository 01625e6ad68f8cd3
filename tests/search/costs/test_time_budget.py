"""A time budget while it is spent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.search import TimeBudget, TrialCosts
from gsfl_tune.search.costs.time_budget import SearchTime
from gsfl_tune.search.costs.time_plan import Control, TimePlan
from gsfl_tune.training.pricing import Measured
from tests.search.experiments import experiment


def _config(*overrides: str) -> Config:
    return experiment("model.head=gsfl", *overrides).defaults()


class _Run:
    def __init__(
        self,
        budget: float,
        *,
        finalists: int = 3,
        seeds: int = 3,
        control: Control = "matched",
        slots: Callable[[Config], int] | None = None,
    ) -> None:
        self.now = 0.0
        self.costs = TrialCosts(train=600, validation=100, classes=21)
        self.training = self.costs.seconds(_config())
        plan = TimePlan(
            budget=budget * self.training,
            spent=0.0,
            head_epochs=4,
            finetune_epochs=0,
            finalists=finalists,
            final_seeds=seeds,
            training=self.training,
            once=0.0,
            search=1.0,
            finals=1.0,
            evidence=self.training,
            trials=10,
            slots=1,
        )
        self.budget = TimeBudget(
            plan, lambda: self.now, self.costs, control=control, retrain=1.0, slots=slots
        )


def test_the_search_ends_when_the_finals_have_to_begin() -> None:
    # Nine trainings for the race, nine for winner and control, one for the evidence.
    run = _Run(budget=40)
    limit = SearchTime(run.budget)
    assert limit.over(_config()) is None
    expected = 0.97 * 40 - 19
    assert limit.left(_config()) == pytest.approx(expected * run.training, rel=0.01)
    run.now = (expected - 0.1) * run.training
    assert limit.over(_config()) is None
    run.now = (expected + 0.1) * run.training
    assert "for the finals" in str(limit.over(_config()))
    assert limit.left(_config()) == 0


def test_a_search_without_a_result_goes_on_for_the_budget_once_more() -> None:
    run = _Run(budget=40)
    limit = SearchTime(run.budget)
    run.now = 39 * run.training
    assert "for the finals" in str(limit.over(_config()))
    assert limit.over(_config(), empty=True) is None
    # It is told to end as soon as a trial has reached a rung, however late.
    run.now = 79 * run.training
    assert limit.over(_config(), empty=True) is None
    assert limit.over(_config()) == "search.time_budget is used up"
    run.now = 81 * run.training
    assert limit.over(_config(), empty=True) == "search.time_budget is used up"


def test_a_dear_winner_ends_the_search_earlier() -> None:
    run = _Run(budget=60)
    dear = _config("model.latent_dim=32", "training.head.epochs=40")
    assert run.budget.search_seconds(dear) < run.budget.search_seconds(_config())


def test_the_first_of_two_searches_has_its_share() -> None:
    run = _Run(budget=40)
    half, whole = (run.budget.search_seconds(_config(), share=share) for share in (0.5, 1.0))
    assert half == pytest.approx(whole / 2)


def _three_trainings(seeds: int) -> int:
    """The retrains of winner and control, and the validation of the control."""
    return 3 * seeds


def test_a_study_knows_its_slot_seconds_and_trials_whatever_a_resume_has_left() -> None:
    run = _Run(budget=40)
    limit = SearchTime(run.budget)
    whole = 2 * (0.97 * 40 - 19) * run.training
    assert limit.slot_seconds(_config(), 2, 0.0) == pytest.approx(whole, rel=0.01)
    run.now = 8 * run.training
    assert limit.slot_seconds(_config(), 2, run.now) == pytest.approx(whole, rel=0.01)
    # Where the file gives a number of trials, that may be less.
    counted = SearchTime(run.budget, counted=True)
    few = counted.slot_seconds(_config("search.trials=6"), 2, run.now)
    assert few == pytest.approx(6 * run.training)
    many = counted.slot_seconds(_config("search.trials=600"), 2, run.now)
    assert many == pytest.approx(whole, rel=0.01)
    # The plan has ten trials; the first of two studies has half of them.
    assert [limit.trials(most) for most in (1, 6, 1000)] == [1, 6, 10]
    assert SearchTime(run.budget, share=0.5).trials(1000) == 5


def test_finalists_and_seeds_follow_from_what_is_left() -> None:
    run = _Run(budget=40)
    three = [_config()] * 3
    run.now = 10 * run.training
    assert run.budget.finalists(three) == 3
    assert run.budget.another_seed(three)
    assert run.budget.seeds(_config(), _three_trainings) == 3
    # Left are 5.5, and 2 over the budget: one for the evidence, three for two retrains with one
    # seed and its comparison.
    run.now = 34.5 * run.training
    assert run.budget.finalists(three) == 3
    run.now = 36.5 * run.training
    assert run.budget.finalists(three) == 1
    assert not run.budget.another_seed(three)
    assert run.budget.seeds(_config(), _three_trainings) == 1
    run.now = 34.9 * run.training
    assert run.budget.seeds(_config(), _three_trainings) == 2


def test_what_is_trained_already_has_no_price() -> None:
    run = _Run(budget=40)
    three = [_config()] * 3
    # Left are 3.5, and 2 over the budget: one for the evidence, three for the retrains, and 1.5.
    run.now = 36.5 * run.training
    assert run.budget.finalists(three, {0, 1}) == 3
    assert run.budget.finalists(three, {2}) == 1
    assert run.budget.another_seed(three, owed=1)
    assert not run.budget.another_seed(three, owed=2)
    assert run.budget.seeds(_config(), lambda seeds: 3 * seeds - 5) == 3
    # Nothing is left; what costs nothing stays.
    run.now = 50 * run.training
    assert run.budget.another_seed(three, owed=0)
    assert run.budget.seeds(_config(), lambda seeds: 0) == 3
    assert run.budget.seeds(_config(), _three_trainings, finished=2) == 2


def test_the_race_of_a_tuned_control_is_paid_once() -> None:
    run = _Run(budget=40, seeds=1, control="tuned")
    three = [_config()] * 3
    # Left are 7.1 with the overdraft: one for the evidence, three for a race, two for the retrains.
    run.now = 34.9 * run.training
    # In front of the winner's race there are two races to come, which is too much for three.
    assert run.budget.finalists(three) == 2
    assert not run.budget.another_seed(three)
    # The control's own one is the last.
    last = run.budget.followed_by("raced")
    assert last.finalists(three) == 3
    assert last.another_seed(three)
    # Without a rival that races, the control is validated beside its retrains.
    assert run.budget.followed_by("matched").finalists(three) == 3
    # The budget itself is as it was.
    assert run.budget.finalists(three) == 2


def test_the_search_of_a_tuned_control_leaves_time_for_a_dear_winner() -> None:
    run = _Run(budget=90, control="tuned")
    cheap, dear = _config(), _config("model.latent_dim=32", "training.head.epochs=40")
    alone = SearchTime(run.budget)
    with_winner = SearchTime(run.budget, winner=dear)
    assert with_winner.left(cheap) == alone.left(dear) < alone.left(cheap)
    assert SearchTime(run.budget, winner=cheap).left(dear) == alone.left(dear)
    run.now = alone.left(dear) + run.training
    assert alone.over(cheap) is None
    assert "for the finals" in str(with_winner.over(cheap))


def test_finals_are_priced_for_the_slots_that_there_are() -> None:
    planned, more = _Run(budget=40), _Run(budget=40, slots=lambda config: 9)
    # Planned for one slot and resumed with nine: one round for the race, one for the retrains.
    assert planned.budget.search_seconds(_config()) == pytest.approx(
        (0.97 * 40 - 19) * planned.training, rel=0.01
    )
    assert more.budget.search_seconds(_config()) == pytest.approx(
        (0.97 * 40 - 3) * more.training, rel=0.01
    )
    more.now = 38 * more.training
    assert more.budget.seeds(_config(), _three_trainings) == 3
    planned.now = more.now
    assert planned.budget.seeds(_config(), _three_trainings) == 1


def test_a_winner_with_slots_of_its_own_is_priced_for_these() -> None:
    large = "model.backbone=test_vit"

    def slots(config: Config) -> int:
        return 1 if config.model.backbone == "test_vit" else 9

    run = _Run(budget=40, slots=slots)
    small = run.budget.search_seconds(_config())
    assert run.budget.search_seconds(_config(large)) < small - 10 * run.training
    # Of two finalists, that one ends the round which waits for slots.
    both = [_config(), _config(large)]
    assert run.budget.dearest(both).model.backbone == "test_vit"


def test_finals_end_with_the_slowest_machine() -> None:
    run = _Run(budget=200)
    [work] = run.costs.work(_config())
    each = run.costs.costs.epoch(work)
    for factor, machine in ((1, "fast"), (100, "slow")):
        run.costs.costs.observe(Measured(work, 1, factor * each, machine))
    trial, last = run.budget.training(_config()), run.costs.seconds(_config(), slowest=True)
    assert last > 1.3 * trial
    assert run.budget.search_seconds(_config()) == pytest.approx(
        0.97 * 200 * run.training - 18 * last - run.training
    )


def test_no_control_is_priced_beside_a_winner_that_has_none() -> None:
    run = _Run(budget=40)
    plain = experiment("model.head=plain").defaults()
    price = run.costs.seconds(plain)
    # Nine trainings for the race, three for the winner.
    expected = 0.97 * 40 * run.training - 12 * price - run.training
    assert run.budget.search_seconds(plain) == pytest.approx(expected)


def test_answers_in_fp32_are_paid_with_the_finals() -> None:
    """Those of 2,000 test images take longer than a training of few images."""

    def left(precision: str) -> float:
        run = _Run(budget=100)
        run.costs = TrialCosts(train=600, validation=100, classes=21, test=2000)
        budget = TimeBudget(run.budget.plan, lambda: 0.0, run.costs, control="matched", retrain=1.0)
        config = _config("training.finetune.epochs=2", f"training.precision={precision}")
        # Nine trainings of the race; nine of winner and control, in rounds of one slot.
        answers = 9 * run.costs.answers(config) + 9 * run.costs.answers(config, "train+validation")
        return SearchTime(budget).budget.search_seconds(config) + answers

    assert left("bf16") == pytest.approx(left("fp32"))
