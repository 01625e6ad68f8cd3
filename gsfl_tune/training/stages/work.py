"""The operations of an epoch of a stage, as a measure of its cost: what all stages share."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import (
    head_parameters,
    pooled_channels,
    pooling_class,
    pooling_dim,
    probe,
)
from gsfl_tune.training.head_terms import head_term_parameters
from gsfl_tune.training.timeline import StageName

# Of an optimiser step, for each trained parameter: AdamW reads and writes weight, gradient and two
# moments, which takes as long as some 60 operations of a matrix product.
UPDATE = 60.0
# A training step does the work of a forward pass three times: one is for gradients of weights.
STEP = 3.0


@dataclass(frozen=True)
class Work:
    """Describes the work of an epoch of a stage.

    Attributes:
        stage: The stage.
        kind: What its speed depends on besides the number of operations: trainings with the same
            kind on the same machine have the same operations a second, about.
        operations: Multiplications and additions of an epoch, validation included.
        steps: Optimiser steps of an epoch.
        epochs: Epochs of the stage.
        once: Multiplications and additions before the first epoch.
        once_steps: Optimiser steps before the first epoch.
    """

    stage: StageName
    kind: tuple[str, ...]
    operations: float
    steps: int
    epochs: int
    once: float = 0.0
    once_steps: int = 0


def method_kind(config: Config) -> tuple[str, ...]:
    """Returns the part of a kind of work that the method decides."""
    name = config.training.method
    return () if name == "single" else (name,)


def channels_of_pooling(config: Config) -> tuple[int, int]:
    """Returns the channels that the pooling sees, and how many are of a second stream."""
    model = config.model
    facts = probe(model.extractor, pooling_class(model.pooling).reads)
    return pooled_channels(
        model.pooling, model.pooling_channels, facts.channels, facts.second_channels
    )


def feature_size(config: Config) -> int:
    """Returns D, the size of the features of a configuration."""
    model = config.model
    channels, second = channels_of_pooling(config)
    return pooling_dim(model.pooling, channels, dim=model.pooling_dim, second=second)


def trained_head_parameters(config: Config, classes: int) -> int:
    """Counts the parameters of the head of a configuration."""
    model, dim = config.model, feature_size(config)
    # A classifier of few groups is left out: it would change what earlier searches have measured.
    terms = head_term_parameters(model.head, dim, model.latent_dim, groups=0)
    return head_parameters(model.head, dim, model.latent_dim, classes) + terms
