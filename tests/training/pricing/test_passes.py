"""How often a search runs a frozen backbone over the images."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.training.pricing.passes import feature_passes

TEXT = """name: t
data: {source: typefaces}
search: {trials: 50, control: 'off'}
"""


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (1, 0)),
        (["model.backbone={choice: [resnet18, resnet34]}"], (2, 0)),
        (["data.views=4"], (1, 4)),
        (["data.views=4", "data.augment.scale={choice: [0.2, 0.5, 1]}"], (1, 12)),
        (["data.views=4", "model.backbone={choice: [resnet18, resnet34]}"], (2, 8)),
        (["data.image_size={int: [64, 256], step: 32}"], (7, 0)),
        (["data.image_size={int: [64, 256]}"], (50, 0)),
        (["data.image_size={int: [64, 256]}", "search.trials=9", "search.control=tuned"], (18, 0)),
        # Of no effect without bilinear pooling.
        (["model.pooling_dim={int: [64, 256]}"], (1, 0)),
        (["model.pooling=gem", "model.gem_power={int: [1, 4]}"], (4, 0)),
        # Without a head stage nothing trains on the features of views.
        (["data.views=4", "training.head.epochs=0", "training.finetune.epochs=2"], (1, 0)),
    ],
)
def test_passes(overrides, expected):
    assert feature_passes(Experiment.parse(TEXT, overrides=overrides)) == expected
