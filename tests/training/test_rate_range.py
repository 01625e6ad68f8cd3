"""The learning-rate range test, and what it reads from a curve."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training.rate_range import find_rates
from gsfl_tune.training.rate_sweep import RateSweep, SweepOver, below_minimum, steepest


def swept(losses, **options):
    sweep = RateSweep(**{"peak": 0.1, "low": 1e-4, "high": 1.0, "steps": 41, **options})
    factors = []
    for loss in losses:
        sweep.saw(torch.tensor(float(loss)), 1.0)
        try:
            factors.append(sweep.factor())
        except SweepOver:
            return sweep, factors
    raise AssertionError("the sweep has no end")


def test_rates_rise_geometrically_from_the_lowest_to_the_highest():
    sweep, factors = swept(itertools.repeat(1.0))
    assert len(factors) == 41
    assert np.allclose(np.array(factors) * 0.1, sweep.rates)
    assert sweep.rates[0] == pytest.approx(1e-4)
    assert sweep.rates[-1] == pytest.approx(1.0)
    assert np.allclose(np.diff(np.log(sweep.rates)), np.log(10) / 10)
    assert sweep.smoothed == pytest.approx([1.0] * 41)


def test_a_loss_of_four_times_the_lowest_one_ends_it():
    sweep, _ = swept([*[1.0] * 20, *[50.0] * 21])
    assert 20 < len(sweep.rates) < 30


def test_a_loss_that_is_not_finite_ends_it_and_is_not_kept():
    sweep, _ = swept([*[1.0] * 15, float("nan")])
    assert sweep.losses == [1.0] * 15


def test_micro_batches_add_up_to_the_loss_of_a_step():
    sweep = RateSweep(0.1, 1e-3, 1.0, 30)
    sweep.saw(torch.tensor(3.0), 0.25)
    sweep.saw(torch.tensor(1.0), 0.75)
    sweep.factor()
    assert sweep.losses == [pytest.approx(1.5)]


def test_the_steepest_rate_and_a_tenth_of_the_lowest_are_read_from_the_curve():
    rates = np.geomspace(1e-6, 10, 141)
    # Falls fastest at 1e-3, is lowest at 1e-1, then rises.
    places = np.log10(rates)
    losses = 2 - 1 / (1 + np.exp(-4 * (places + 3))) + np.maximum(0, places + 1) ** 2
    lowest = rates[np.argmin(losses)]
    assert steepest(rates, losses) == pytest.approx(1e-3, rel=0.3)
    assert below_minimum(rates, losses) == pytest.approx(lowest / 10)


def test_a_loss_that_only_rises_has_no_steepest_fall():
    rates = np.geomspace(1e-6, 10, 50)
    assert steepest(rates, np.linspace(1, 3, 50)) is None


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    from gsfl_tune.experiment import Experiment

    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.yaml"
    file.write_text(
        """\
name: tiny
data: {source: typefaces, image_size: 32, typefaces: {train: 6, test: 2, size: 40}}
model: {backbone: test_efficientnet, weights: none, latent_dim: 16}
training:
  device: cpu
  precision: fp32
  head: {epochs: 1, batch_size: 32, learning_rate: 0.004}
  finetune: {epochs: 1, batch_size: 32, blocks: 1, learning_rate: 0.002}
"""
    )
    return Experiment.load(file)


def test_each_stage_is_tested_from_where_it_begins(experiment, tmp_path):
    lines = []
    head, finetune = find_rates(experiment, steps=30, highest=3.0, notice=lines.append)
    assert (head.stage, finetune.stage) == ("head", "finetune")
    assert lines == ["range test of the head stage", "range test of the finetune stage"]
    assert (head.present, finetune.present) == (0.004, 0.002)
    for each in (head, finetune):
        assert 20 <= len(each.rates) == len(each.losses) == len(each.smoothed) <= 30
        assert each.diverged == (len(each.rates) < 30)
        assert each.rates[0] < each.below_minimum * 10 <= each.rates[-1]
    again = find_rates(experiment, steps=30, highest=3.0)
    assert [each.losses for each in again] == [head.losses, finetune.losses]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 19}, "steps of a range test: found 19, allowed: 20 and more"),
        ({"lowest": 0.0}, "found 0 to 10, allowed: above 0, and rising"),
        ({"lowest": 1.0, "highest": 0.1}, "found 1 to 0.1, allowed: above 0, and rising"),
        ({"lowest": 1e6, "highest": 1e9, "steps": 20}, "the loss diverged after .* steps"),
    ],
)
def test_bad_input_is_refused(experiment, options, message):
    with pytest.raises(UserError, match=message):
        find_rates(experiment, **options)
