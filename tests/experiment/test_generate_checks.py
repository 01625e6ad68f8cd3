"""Generated features that cannot be: one line for each reason."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError

TEXT = """name: t
data: {source: typefaces}
training:
  head: {epochs: 3, generate: {share: 0.5}}
"""
SHARE = "t.yaml:4: training.head.generate.share: found 0.5"


def parsed(*overrides: str) -> Experiment:
    return Experiment.parse(TEXT, file="t.yaml", overrides=overrides)


def test_a_share_is_enough():
    config = parsed().defaults().training.head.generate
    assert (config.share, config.critic, config.condition) == (0.5, "wasserstein", "image")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["training.head.epochs=0", "training.finetune.epochs=2"],
            "without a head stage, allowed 0, or training.head.epochs above 0",
        ),
        (["data.shots=1"], "with data.shots 1, allowed 0, or data.shots of 2 and more"),
        (
            ["loss.distill.weight=0.5"],
            "with loss.distill.weight 0.5, allowed 0, or no distillation",
        ),
    ],
)
def test_what_it_needs_is_named(overrides, expected):
    with pytest.raises(UserError) as error:
        parsed(*overrides)
    [line] = [line for line in str(error.value).splitlines() if "generate.share" in line]
    assert line.startswith(f"{SHARE} {expected}")


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("share=-0.1", "training.head.generate.share: found -0.1, allowed"),
        ("share=11", "training.head.generate.share: found 11, allowed"),
        ("critic=hinge", "training.head.generate.critic: found 'hinge', allowed wasserstein"),
        ("noise_dim=0", "training.head.generate.noise_dim: found 0, allowed"),
        ("batch_size=1", "training.head.generate.batch_size: found 1, allowed"),
        ("temperature=0", "training.head.generate.temperature: found 0, allowed"),
        ("stepz=5", "training.head.generate.stepz: unknown key"),
    ],
)
def test_a_wrong_value_is_one_line(override, allowed):
    with pytest.raises(UserError) as error:
        parsed(f"training.head.generate.{override}")
    [line] = str(error.value).splitlines()
    assert allowed in line


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        ([], []),
        (["training.head.generate.critic=relation"], ["gradient_penalty"]),
        (["training.head.generate.share=0"], ["gradient_penalty", "steps"]),
    ],
)
def test_a_searched_setting_without_effect_is_named(overrides, idle):
    searched = [
        "training.head.generate.steps={int: [10, 20]}",
        "training.head.generate.gradient_penalty={float: [1, 20]}",
    ]
    warnings = parsed(*searched, *overrides).warnings
    assert sorted(each.path.rpartition(".")[2] for each in warnings) == idle
