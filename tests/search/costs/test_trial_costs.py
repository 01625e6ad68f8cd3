"""Prices of trainings: from arithmetic at first, from measurements once there are some."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.search import TrialCosts
from tests.search.experiments import experiment


def _costs(*, test: int = 0, joined: int | None = None) -> TrialCosts:
    return TrialCosts(train=600, validation=100, classes=21, test=test, joined=joined)


def _config(*overrides: str) -> Config:
    return experiment("model.head=gsfl", *overrides).defaults()


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


def test_what_an_earlier_driver_knew_counts_until_something_is_measured() -> None:
    costs, config = _costs(), _config("training.finetune.epochs=2", "data.views=2")
    costs.assume(config, 100.0)
    assert costs.seconds(config) == pytest.approx(100.0)
    head, finetune = costs.work(config)
    known = costs.costs.epoch(finetune)
    costs.observe(config, {"measured": {"head": [2, 0.5]}, "place_machine": "x"})
    assert costs.costs.epoch(head) == pytest.approx(0.25)
    assert costs.costs.epoch(finetune) == pytest.approx(known)


def test_a_measurement_prices_whatever_is_of_its_kind() -> None:
    costs, measured, dear = _costs(), _config(), _config("model.latent_dim=32")
    plain = experiment("model.head=plain").defaults()
    before = {name: costs.costs.epoch(costs.work(config)[0]) for name, config in _all(dear, plain)}
    seconds = 6 * costs.costs.epoch(costs.work(measured)[0])
    costs.observe(measured, {"measured": {"head": [2, seconds], "finetune": [1, 1e9]}})
    after = {name: costs.costs.epoch(costs.work(config)[0]) for name, config in _all(dear, plain)}
    assert after["dear"] == pytest.approx(3 * before["dear"])
    # Until a plain head was measured, the nearest that is known is another head.
    assert after["plain"] == pytest.approx(3 * before["plain"])
    costs.observe(plain, {"measured": json.dumps({"head": [1, 5 * before["plain"]]})})
    assert costs.costs.epoch(costs.work(plain)[0]) == pytest.approx(5 * before["plain"])
    assert costs.costs.epoch(costs.work(dear)[0]) == pytest.approx(after["dear"])


def _all(dear: Config, plain: Config) -> list[tuple[str, Config]]:
    return [("dear", dear), ("plain", plain)]


def test_a_result_without_measurements_changes_no_price() -> None:
    costs, config = _costs(), _config()
    before = costs.seconds(config)
    for result in ({}, {"measured": None}, {"measured": ""}, {"measured": {"finetune": [1, 99.0]}}):
        costs.observe(config, result)
    assert costs.seconds(config) == before


def test_a_start_takes_what_the_last_ones_took() -> None:
    costs = _costs()
    assert costs.start > 0
    for seconds in (3.0, 3.0, 200.0):
        costs.note_start(seconds)
    # One that waited for something does not count.
    assert costs.start == 3.0
    for _ in range(30):
        costs.note_start(50.0)
    costs.note_start(3.0)
    assert costs.start == 50.0


def test_a_final_retrain_costs_what_joins_it() -> None:
    config = _config("training.head.epochs=40")
    all_join, half, none = _costs(), _costs(joined=50), _costs(joined=0)
    assert [each.retrain for each in (all_join, half, none)] == pytest.approx([7 / 6, 6.5 / 6, 1])
    final = [each.seconds(config, fit="train+validation") for each in (all_join, half, none)]
    assert final[0] > final[1] > final[2]
    # Without validation after every epoch it is cheaper than a trial on the same images.
    assert final[2] < none.seconds(config)


def test_evidence_grows_with_images_and_with_seeds_of_trained_backbones() -> None:
    few, many = _costs(test=100), _costs(test=1000)
    frozen, trained = _config(), _config("training.finetune.epochs=2")
    assert many.evidence(frozen) > few.evidence(frozen)
    # A frozen backbone gives every seed the same features.
    assert few.evidence(frozen, seeds=3) == few.evidence(frozen)
    by_seeds = [few.evidence(trained, seeds=seeds) for seeds in (1, 2, 3, 4)]
    assert by_seeds[0] < by_seeds[1] < by_seeds[2] == by_seeds[3]
    assert by_seeds[1] - by_seeds[0] == pytest.approx(few.evidence_seed(trained))
    # It has the whole machine, which is faster than one of its slots.
    assert few.evidence_seed(trained, slots=2) == pytest.approx(few.evidence_seed(trained) / 2)


@pytest.mark.parametrize(
    "changes",
    [
        ("model.feature_precision=int8",),
        ("training.cache_precision=fp16",),
        ("training.finetune.epochs=2", "training.precision=bf16"),
    ],
)
def test_the_last_answers_in_fp32_have_a_price(changes: tuple[str, ...]) -> None:
    plain = [each for each in changes if each.startswith("training.finetune")]
    exact = _config(*plain, "training.precision=fp32")

    def difference(images: int) -> float:
        costs = _costs(test=images)
        return costs.evidence(_config(*changes)) - costs.evidence(exact)

    few, many = difference(1000), difference(10_000)
    assert 0 < few < many
