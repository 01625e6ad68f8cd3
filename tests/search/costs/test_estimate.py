"""Hours and money of a search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.search.costs.estimate import of_budget, of_prices
from gsfl_tune.search.costs.time_plan import SURVIVING, Asked, Prices

PRICES = Prices(
    start=2.0, head_epoch=1.0, finetune_epoch=3.0, once=30.0, finetune_once=20.0, evidence=40.0,
    retrain=1.25, evidence_seed=5.0, view_once=2.0, views=4,
)  # fmt: skip


def asked(control="matched", grace=1):
    return Asked(None, None, None, None, control=control, grace=grace)


def estimate(control="matched", grace=1, trials=40, slots=4, gpus=0.5):
    return of_prices(
        PRICES, asked(control, grace), trials=trials, epochs=(10, 8), finals=(3, 3), slots=slots,
        gpus=gpus,
    )  # fmt: skip


def test_a_budget_is_slots_times_hours_times_price():
    found = of_budget(6 * 3600, slots=8, gpus=0.5)
    assert (found.hours, found.slot_hours, found.gpu_hours) == (6, 48, 24)
    assert found.money(2.5) == 120
    assert found.to_json(2.5)["money"] == 120
    assert found.to_json()["money"] is None


def test_parts_by_hand():
    found = estimate()
    training = 2 + 10 * 1 + 8 * 3  # 36 s
    assert found.parts["preparation"] == 30 + 20 + 4 * 2
    assert found.parts["search"] == pytest.approx(40 * SURVIVING * training / 4)
    # Of 9 trainings of the race 6, as it ends with the first seed or the last, in 2 rounds of 4
    # slots; then 3 of the control's validation and 6 retrains, with 1.25 times the images, in 3.
    assert found.parts["finals"] == pytest.approx(2 * training + 3 * training * 1.25)
    assert found.parts["evidence"] == 40 + 3 * 5
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.slot_hours == pytest.approx(4 * found.seconds / 3600)
    assert found.gpu_hours == pytest.approx(2 * found.seconds / 3600)


def test_answers_in_fp32_belong_to_the_finals_of_a_trained_backbone():
    prices = replace(PRICES, validated=2.0, tested=5.0)

    def of(prices, epochs):
        return of_prices(
            prices, asked(), trials=40, epochs=epochs, finals=(3, 3), slots=4, gpus=0
        ).parts

    found, before = of(prices, (10, 8)), of(PRICES, (10, 8))
    # Two rounds of the race and three of retrains.
    assert found["finals"] - before["finals"] == pytest.approx(2 * 2 + 3 * 5)
    assert found["evidence"] == before["evidence"]
    assert of(prices, (10, 0)) == of(PRICES, (10, 0))


def test_an_epoch_of_each_stage_has_its_seconds():
    found = estimate()
    assert (found.epochs, found.training) == ({"head": 1.0, "finetune": 3.0}, 36)
    told = found.to_json()
    assert (told["epoch_seconds"], told["training_seconds"]) == (found.epochs, 36)
    frozen = of_prices(
        PRICES, asked(), trials=4, epochs=(10, 0), finals=(1, 1), slots=1, gpus=0
    )  # fmt: skip
    assert (frozen.epochs, frozen.training) == ({"head": 1.0}, 12)
    assert of_budget(3600, slots=1, gpus=0).to_json()["epoch_seconds"] == {}


def test_what_changes_it():
    one = estimate()
    assert estimate(grace=None).parts["search"] == pytest.approx(one.parts["search"] / SURVIVING)
    assert estimate(control="tuned").parts["search"] == pytest.approx(2 * one.parts["search"])
    assert estimate(control="off").parts["finals"] < one.parts["finals"]
    assert estimate(trials=80).parts["search"] == pytest.approx(2 * one.parts["search"])
    # Of a few trials at once none ends before a whole training.
    assert estimate(trials=4, slots=64).parts["search"] == 36


def test_a_trial_with_every_fold_takes_as_many_trainings():
    folds = Asked(None, None, None, None, control="off", grace=None, replicates=5)
    found = of_prices(PRICES, folds, trials=8, epochs=(10, 8), finals=(1, 1), slots=4, gpus=0)
    assert found.parts["search"] == pytest.approx(8 * 5 * 36 / 4)
    few = of_prices(PRICES, folds, trials=1, epochs=(10, 8), finals=(1, 1), slots=64, gpus=0)
    assert few.parts["search"] == 5 * 36
