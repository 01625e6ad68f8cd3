"""Seconds of trainings: guessed, then measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.training.pricing import ASSUMED, Costs, Measured, Work

SMALL = Work("head", ("gsfl",), operations=1e9, steps=10, epochs=10)
LARGE = replace(SMALL, operations=30e9)
FINETUNE = Work("finetune", ("net", "2", "224", "cached"), operations=1e12, steps=40, epochs=4)


def test_what_was_measured_corrects_what_is_alike():
    costs = Costs()
    before = costs.epoch(LARGE)
    costs.observe(Measured(SMALL, epochs=2, seconds=4 * 2 * costs.epoch(SMALL)))
    assert costs.epoch(SMALL) == pytest.approx(4 * Costs().epoch(SMALL))
    assert costs.epoch(LARGE) == pytest.approx(4 * before)
    # Another stage has a speed of its own.
    assert costs.epoch(FINETUNE) == Costs().epoch(FINETUNE)
    assert costs.known(LARGE)
    assert not costs.known(FINETUNE)


def test_a_kind_that_was_never_seen_takes_what_its_stage_has_shown():
    costs = Costs()
    costs.observe(Measured(FINETUNE, 1, 3 * costs.epoch(FINETUNE)))
    other = replace(FINETUNE, kind=("net", "all", "224", "images"))
    assert costs.epoch(other) == pytest.approx(3 * Costs().epoch(other))


def test_one_slow_epoch_does_not_count_for_much():
    costs = Costs()
    each = costs.epoch(SMALL)
    for factor in (2, 2, 2, 50, 2):
        costs.observe(Measured(SMALL, 1, factor * each))
    assert costs.epoch(SMALL) == pytest.approx(2 * each)


def test_nodes_of_different_speed_are_averaged():
    costs = Costs()
    each = costs.epoch(SMALL)
    for _ in range(9):
        costs.observe(Measured(SMALL, 1, 1 * each, machine="fast"))
    costs.observe(Measured(SMALL, 1, 5 * each, machine="slow"))
    assert costs.epoch(SMALL) == pytest.approx(3 * each)
    # What ends with the last of several trainings ends on the slow one.
    assert costs.epoch(SMALL, slowest=True) == pytest.approx(5 * each)
    fixed = costs.training([])
    assert costs.training([SMALL], slowest=True) == pytest.approx(fixed + 10 * 5 * each)


def test_the_first_training_of_a_machine_takes_the_place_of_its_timed_steps():
    costs = Costs()
    each = costs.epoch(SMALL)
    for machine, factor in (("fast", 1), ("slow", 5)):
        for _ in range(8):
            costs.observe(Measured(SMALL, 1, factor * each, machine=ASSUMED + machine))
    assert costs.epoch(SMALL) == pytest.approx(3 * each)
    costs.observe(Measured(SMALL, 1, 3 * each, machine="fast"))
    assert costs.epoch(SMALL) == pytest.approx(4 * each)
    assert costs.epoch(SMALL, slowest=True) == pytest.approx(5 * each)
    costs.observe(Measured(SMALL, 1, 7 * each, machine="slow"))
    assert costs.epoch(SMALL) == pytest.approx(5 * each)


def test_what_is_left_of_a_training_is_counted_over_its_stages():
    costs = Costs()
    head, finetune = costs.epoch(SMALL), costs.epoch(FINETUNE)
    whole = costs.training([SMALL, FINETUNE])
    assert whole >= 10 * head + 4 * finetune
    assert costs.training([SMALL, FINETUNE], done=11) == pytest.approx(3 * finetune)
    assert costs.training([SMALL, FINETUNE], done=14) == 0


def test_epochs_within_a_time():
    costs = Costs()
    stages = [SMALL, FINETUNE]
    assert costs.until(stages, 0) == 1
    assert costs.until(stages, 1e9) == 14
    assert costs.until(stages, costs.training([SMALL]) + 2.5 * costs.epoch(FINETUNE)) == 12
    previous = 0
    for tenth in range(1, 11):
        found = costs.until(stages, tenth / 10 * costs.training(stages))
        assert found >= previous
        previous = found
    assert previous == 14
