"""What the training of a generator costs."""

from __future__ import annotations

import torch

from gsfl_tune.experiment.generate_config import PENALISED, GenerateConfig
from gsfl_tune.training.generate.fit import CRITICS
from gsfl_tune.training.generate.network import FeatureGenerator

# Passes of a row through the critic in one of its steps, forwards and backwards: a step of a real
# and a generated feature takes three each. The gradient of a gradient takes about as many again.
_SCORED = 6.0
_PENALTY = 6.0
# The generator's own gradient, of one feature or, with diversity, of two.
_MADE = 3.0


def generator_numbers(config: GenerateConfig, feature_dim: int, classes: int) -> tuple[int, int]:
    """Counts the parameters of a generator with its critic.

    Args:
        config: The settings.
        feature_dim: D.
        classes: C.

    Returns:
        Trained parameters of the generator and of the critic; the means of the classes, which a
        generator may keep, count with its parameters.
    """
    with torch.device("meta"):
        generator = FeatureGenerator(feature_dim, config.noise_dim, config.hidden_dim)
        critic = CRITICS[config.critic](feature_dim, config)
    kept = classes * feature_dim if config.condition == "class_mean" else 0
    own, theirs = (sum(p.numel() for p in each.parameters()) for each in (generator, critic))
    return own + kept, theirs


def generator_operations(config: GenerateConfig, feature_dim: int) -> float:
    """Estimates the multiplications and additions of the whole training of a generator.

    Args:
        config: The settings.
        feature_dim: D.
    """
    own, theirs = generator_numbers(config, feature_dim, classes=0)
    scored = _SCORED
    if config.critic in PENALISED and config.gradient_penalty:
        scored += _PENALTY
    instances = config.critic == "instance" and config.instance_weight > 0
    if instances:  # two views of a real feature and of two generated ones
        scored += 3 * _MADE
    critic = scored * theirs + (5 if instances else 1) * own
    made = 1 + (config.diversity > 0) + (4 if instances else 0)
    # The critic has no gradient of weights in this step.
    generator = _MADE * made * own + 2 * (4 if instances else 1) * theirs
    rows = config.batch_size * config.steps
    return 2 * rows * (config.critic_steps * critic + generator)
