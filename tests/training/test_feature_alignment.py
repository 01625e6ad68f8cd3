"""`training.method: feature_alignment` in real trainings: resumed, in bf16, priced and refused."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.training import Training
from gsfl_tune.training.pricing import training_work

from .checks import NO_NEW_IMAGES, check_refused, check_resumes
from .conftest import tiny_config
from .test_training import run

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 1}


def config_of(head=0, precision="fp32", name="feature_alignment", **settings):
    training = {
        "head": {"epochs": head, "batch_size": 16},
        "finetune": FINETUNE,
        "method": name,
        "precision": precision,
    }
    if settings:
        training["feature_alignment"] = settings
    # Of 32 pixels the map has one position.
    return tiny_config(data={"image_size": 48}, training=training)


@pytest.mark.parametrize("kind", ["activation", pytest.param("class", marks=pytest.mark.slow)])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, kind):
    training = check_resumes(config_of(head=1, map=kind), workspace, tmp_path, stop_after=2)
    head, *finetune = training.log.read()
    assert "train/alignment" not in head
    assert all(record["train/alignment"] > 0 for record in finetune)


def test_half_precision_in_pieces(workspace, tmp_path):
    training = run(Training(config_of(precision="bf16"), workspace, tmp_path, pieces=2))
    assert np.isfinite([record["train/loss"] for record in training.log.read()]).all()


def test_a_step_costs_two_passes():
    single, own = (
        training_work(config_of(head=1, name=name), train=600, validation=100, classes=21)
        for name in ("single", "feature_alignment")
    )
    assert own[0].operations == single[0].operations
    assert 1.8 < own[1].operations / single[1].operations < 2


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training:
  method: feature_alignment
  finetune: {epochs: 1, blocks: 1}
"""


def test_what_does_not_go_together_is_said():
    check_refused(TEXT, NO_NEW_IMAGES)
