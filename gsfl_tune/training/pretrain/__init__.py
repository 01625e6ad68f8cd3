"""Learning of features without labels, in front of the head stage."""

from gsfl_tune.training.pretrain.bases import lightly_problem
from gsfl_tune.training.pretrain.cached import (
    acquire_weights,
    pretrained_backbone,
    pretraining_digest,
    pretraining_settings,
    starting_backbone,
    without_pretraining,
)
from gsfl_tune.training.pretrain.pretraining import Pretraining, PretrainingFailed

__all__ = [
    "Pretraining",
    "PretrainingFailed",
    "acquire_weights",
    "lightly_problem",
    "pretrained_backbone",
    "pretraining_digest",
    "pretraining_settings",
    "starting_backbone",
    "without_pretraining",
]
