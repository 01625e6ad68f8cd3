"""Prices of trainings: from arithmetic at first, from measurements once there are some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.search import TrialCosts
from tests.search.experiments import experiment

TEMPLATE = Path(__file__).parents[3] / "search_spaces" / "image_folder.yaml"


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
    # Eight nodes of one slot do not help each other.
    few.node_slots = 1
    assert few.evidence_seed(trained, slots=8) == few.evidence_seed(trained)
    assert few.evidence(trained, slots=8) == few.evidence(trained)


def test_evidence_takes_what_it_took() -> None:
    # Searches of benchmarks/results/budgeted.jsonl on two cores. Those with one seed are of a
    # template that tested images in the size of the training.
    def priced(
        images: tuple[int, int, int, int], epochs: int, training: float, *, blocks: int, seeds: int
    ) -> float:
        size = 224 if seeds == 1 else 256
        train, validation, test, classes = images
        tried = Experiment.load(
            TEMPLATE,
            overrides=[
                *("data.path=/", "model.backbone=tf_efficientnet_lite0"),
                *(f"training.finetune.blocks={blocks}", "training.head.epochs=10"),
                f"training.finetune.epochs={epochs}",
                f"data.eval_image_size={size}",
                # Those searches did not test in another arithmetic than they trained in.
                "training.precision=fp32",
            ],
        )
        costs = TrialCosts(train=train, validation=validation, test=test, classes=classes)
        costs.assume(tried.defaults(), training)
        return costs.evidence(tried.defaults(), seeds=seeds, slots=2)

    grocery, clothing = (2640, 296, 2485, 81), (3068, 341, 372, 10)
    # 53, 73 and 126 seconds, ten more for the bundles. The longest had other work beside it.
    assert 53 + 10 < priced(grocery, 8, 317.0, blocks=2, seeds=1) < 73 + 10
    assert priced(grocery, 8, 151.0, blocks=1, seeds=3) == pytest.approx(149 + 15, rel=0.1)
    assert priced(clothing, 5, 95.0, blocks=1, seeds=3) == pytest.approx(64 + 10, rel=0.1)
    # 24 to 27 seconds, with the bundles 35.
    assert 24 < priced(clothing, 8, 345.0, blocks=2, seeds=1) < 45


@pytest.mark.parametrize(
    "change", ["model.feature_precision=int8", "training.cache_precision=fp16"]
)
def test_features_that_a_bundle_computes_again_have_a_price(change: str) -> None:
    def difference(images: int) -> float:
        costs = _costs(test=images)
        return costs.evidence(_config(change)) - costs.evidence(_config())

    few, many = difference(1000), difference(10_000)
    assert 0 < few < many


def test_a_training_in_bf16_changes_no_frozen_feature() -> None:
    costs = _costs(test=1000)
    assert costs.evidence(_config("training.precision=bf16")) == costs.evidence(_config())
    stages = ("training.finetune.epochs=2",)
    low, full = (_config(*stages, f"training.precision={each}") for each in ("bf16", "fp32"))
    # What is answered again is answered at the end of a retrain, before the evidence.
    assert costs.evidence(low, seeds=3) == costs.evidence(full, seeds=3)


def test_the_last_answers_in_fp32_are_a_part_of_the_retrain() -> None:
    costs = _costs(test=1000)
    low = _config("training.finetune.epochs=2", "training.precision=bf16")
    validated, tested = costs.answers(low), costs.answers(low, "train+validation")
    assert tested == pytest.approx(10 * validated)  # 100 validation images
    assert validated > 0
    # They pass the whole network, which is less than an epoch of it.
    [_, finetune] = costs.work(low)
    assert validated < costs.costs.epoch(finetune)
    full = _config("training.finetune.epochs=2", "training.precision=fp32")
    assert costs.answers(full) == costs.answers(_config("training.precision=bf16")) == 0


def test_images_cost_by_the_size_that_the_trained_network_sees_them_in() -> None:
    small = _config("training.finetune.epochs=2", "data.image_size=32", "data.eval_image_size=32")
    large = _config("training.finetune.epochs=2", "data.image_size=32", "data.eval_image_size=64")
    few, many = _costs(test=1000), _costs(test=1000)
    for costs, config in ((few, small), (many, large)):
        _, finetune = costs.work(config)
        costs.observe(config, {"measured": {"finetune": [1, 1e-9 * finetune.operations]}})
    assert many.evidence_seed(large) == pytest.approx(4 * few.evidence_seed(small), rel=0.1)
