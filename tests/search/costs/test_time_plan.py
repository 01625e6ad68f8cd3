"""How a time budget is spent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.costs.time_plan import Asked, Prices, make_plan

# About what 3,000 photographs and the last two blocks of a small backbone cost on one core.
PRICES = Prices(
    start=3, head_epoch=0.6, finetune_epoch=41, once=60, finetune_once=240, evidence=60, retrain=1.1
)
FREE = Asked(None, None, None, None, "matched")
MINUTE = 60.0


@pytest.mark.parametrize("minutes", [6, 10, 20, 40, 60, 120, 240, 600, 3000])
@pytest.mark.parametrize("slots", [1, 2, 8, 64])
def test_the_phases_fit_into_the_budget(minutes, slots):
    plan = make_plan(minutes * MINUTE, 15, slots, PRICES, FREE)
    whole = plan.spent + plan.once + plan.search + plan.finals + plan.evidence
    assert whole <= plan.budget
    # A slot has time for one trial to its end, or there is no other trial than the defaults.
    assert plan.alone == (plan.search < plan.training)
    assert plan.trials >= 1


def test_more_time_is_more_epochs_more_seeds_and_more_trials():
    plans = [make_plan(m * MINUTE, 15, 2, PRICES, FREE) for m in (20, 40, 80, 160, 640)]
    assert [p.finetune_epochs for p in plans] == sorted(p.finetune_epochs for p in plans)
    assert plans[0].finetune_epochs > 0
    assert plans[-1].finalists == plans[-1].final_seeds == 3
    assert plans[-1].trials > 5 * plans[1].trials


def test_a_short_budget_goes_into_epochs_before_it_goes_into_trials():
    # What 3,000 photographs and the last block cost, with the features of its views kept.
    prices = Prices(
        start=1.5, head_epoch=2.6, finetune_epoch=19, once=36, finetune_once=7, evidence=37,
        retrain=1.11, evidence_seed=4.5, view_once=19, views=4,
    )  # fmt: skip
    plans = [make_plan(minutes * MINUTE, 29, 2, prices, FREE) for minutes in (8, 10, 12, 20)]
    assert [each.finetune_epochs for each in plans] == [4, 6, 6, 8]
    assert [each.alone for each in plans] == [True, True, False, False]
    for each in plans[:3]:
        assert (each.finalists, each.final_seeds) == (1, 1)
    assert "the first trial alone" in "\n".join(plans[0].lines())
    # A trial that is never stopped, that folds judge or several objectives, comes to its end.
    for asked in (
        replace(FREE, grace=None),
        replace(FREE, replicates=3),
        replace(FREE, several=True),
    ):
        plan = make_plan(8 * MINUTE, 29, 2, prices, asked)
        assert not plan.alone
        assert plan.search >= plan.training


def test_where_the_backbone_cannot_be_trained_in_time_the_head_is():
    plan = make_plan(8 * MINUTE, 15, 2, PRICES, FREE)
    assert plan.finetune_epochs == 0
    assert "too little time" in plan.lines()[0]
    # What only the finetune stage needs is not paid for.
    assert plan.once == PRICES.once


def test_a_file_that_trains_no_backbone_is_not_told_that_time_is_short():
    plan = make_plan(8 * MINUTE, 15, 2, PRICES, replace(FREE, finetune_epochs=0))
    first = plan.lines()[0]
    assert "head epochs: a frozen backbone" in first
    assert "too little time" not in first


def test_a_head_alone_gets_fewer_epochs_where_the_time_is_short():
    """A first look in minutes is not refused on a slow machine."""
    slow = replace(PRICES, head_epoch=6)
    asked = replace(FREE, finetune_epochs=0)
    epochs = [make_plan(m * MINUTE, 15, 2, slow, asked).head_epochs for m in (6, 10, 12, 15)]
    assert epochs == [5, 10, 20, 30]
    with pytest.raises(UserError, match="30 head and 0 finetune epochs"):
        make_plan(6 * MINUTE, 15, 2, slow, replace(asked, head_epochs=30))


def test_what_the_file_gives_is_kept():
    asked = Asked(5, 6, 4, 2, "off")
    plan = make_plan(120 * MINUTE, 15, 2, PRICES, asked)
    assert (plan.head_epochs, plan.finetune_epochs) == (5, 6)
    assert (plan.finalists, plan.final_seeds) == (4, 2)


def test_a_budget_for_not_one_training_is_refused_with_the_smallest():
    with pytest.raises(UserError) as error:
        make_plan(2 * MINUTE, 15, 2, PRICES, FREE)
    text = str(error.value)
    assert "search.time_budget: found 2 min, allowed here at least" in text
    for word in ("a training", "finals", "evidence"):
        assert word in text
    # What it says is enough, is.
    asked = Asked(10, 8, None, None, "matched")
    with pytest.raises(UserError, match=r"at least (\d+) min") as error:
        make_plan(10 * MINUTE, 15, 2, PRICES, asked)
    minutes = int(str(error.value).split("at least ")[1].split(" min")[0])
    assert make_plan((minutes + 1) * MINUTE, 15, 2, PRICES, asked).finetune_epochs == 8


def test_a_tuned_control_takes_a_search_and_finals_of_its_own():
    matched, tuned = (
        make_plan(600 * MINUTE, 15, 2, PRICES, replace(FREE, control=control))
        for control in ("matched", "tuned")
    )
    assert tuned.finals > matched.finals


def test_the_plan_is_readable_and_survives_its_file():
    plan = make_plan(40 * MINUTE, 15, 2, PRICES, FREE)
    lines = plan.lines()
    assert lines[0].startswith("plan for 40 min: 10 head + ")
    assert all(len(line) <= 80 for line in lines)
    assert replace(plan, **plan.to_json()) == plan


def test_further_folds_are_paid_for_and_one_trial_has_all_of_them():
    asked = Asked(20, 0, 1, 1, "matched", grace=5)
    five = replace(asked, replicates=5)
    # Rungs after 5, 10 and 20 epochs: one in 4 ends its first training, one in 2 of these goes on.
    further = (1 / 2 + 1 / 4 + 1 / 8 + 1 / 16) / 4
    assert five.share(20, 0) - asked.share(20, 0) == pytest.approx(further)
    assert replace(five, grace=None).share(20, 0) == 5
    one, several = (make_plan(60 * MINUTE, 15, 2, PRICES, each) for each in (asked, five))
    assert several.search == one.search
    assert one.trials / several.trials == pytest.approx(1 + further / asked.share(20, 0), rel=0.02)
    # A budget for one training of a trial is too small for one with every fold.
    dear = replace(asked, finetune_epochs=4)
    assert make_plan(26 * MINUTE, 15, 1, PRICES, dear).trials >= 1
    with pytest.raises(UserError, match="allowed here at least"):
        make_plan(26 * MINUTE, 15, 1, PRICES, replace(dear, replicates=5))
