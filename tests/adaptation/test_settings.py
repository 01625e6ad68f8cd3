"""Settings that cannot be used are all named at once."""

from __future__ import annotations

import pytest

from gsfl_tune.adaptation import Settings
from gsfl_tune.experiment.errors import UserError


def problems(settings: Settings, images: int = 100, *, encodes: bool = True) -> list[str]:
    try:
        settings.check(images, 4, encodes=encodes)
    except UserError as error:
        return str(error).splitlines()
    return []


def test_the_defaults_can_be_used():
    assert problems(Settings()) == []
    assert problems(Settings(blocks=0)) == []
    assert problems(Settings(blocks=4, train_encoder=False)) == []


@pytest.mark.parametrize(
    ("settings", "found", "allowed"),
    [
        (Settings(epochs=0), "--epochs: found 0", "from 1 on"),
        (Settings(learning_rate=0.0), "--learning-rate: found 0", "above 0"),
        (Settings(learning_rate=-1e-3), "--learning-rate: found -0.001", "above 0"),
        (Settings(learning_rate=float("nan")), "--learning-rate: found nan", "above 0"),
        (Settings(learning_rate=float("inf")), "--learning-rate: found inf", "above 0"),
        (Settings(beta=-1.0), "--beta: found -1", "from 0 on"),
        (Settings(seed=-1), "--seed: found -1", "from 0 on"),
        (Settings(batch_size=1), "--batch-size: found 1", "from 2 on"),
        (Settings(batch_size=101), "--batch-size: found 101 for 100 images", "at most"),
        (Settings(blocks=5), "--blocks: found 5", "0 to 4"),
        (Settings(blocks=-1), "--blocks: found -1", "0 to 4"),
        (Settings(blocks=0, train_encoder=False), "nothing is trained", "from 1 on"),
    ],
)
def test_a_problem_is_named(settings, found, allowed):
    (line,) = problems(settings)
    assert found in line
    assert allowed in line


def test_a_head_without_an_encoder_needs_blocks():
    assert problems(Settings(blocks=1), encodes=False) == []
    assert "no encoder" in problems(Settings(blocks=0), encodes=False)[0]


def test_every_problem_is_named_at_once():
    assert len(problems(Settings(epochs=0, learning_rate=0.0, beta=-1.0, blocks=9))) == 4
