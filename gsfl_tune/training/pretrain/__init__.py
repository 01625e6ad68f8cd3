"""Learning of features without labels, in front of the head stage."""

from gsfl_tune.training.pretrain.bases import lightly_problem
from gsfl_tune.training.pretrain.cached import (
    acquire_weights,
    keep_weights,
    key_parts,
    pretrained_backbone,
    pretraining_digest,
    pretraining_settings,
    starting_backbone,
    with_precision,
    without_pretraining,
)
from gsfl_tune.training.pretrain.pretraining import Pretraining, PretrainingFailed
from gsfl_tune.training.pretrain.shared import NEIGHBOURS, PretrainingStopped, SharedPretraining
from gsfl_tune.training.pretrain.team import PretrainingTeam

__all__ = [
    "NEIGHBOURS",
    "Pretraining",
    "PretrainingFailed",
    "PretrainingStopped",
    "PretrainingTeam",
    "SharedPretraining",
    "acquire_weights",
    "keep_weights",
    "key_parts",
    "lightly_problem",
    "pretrained_backbone",
    "pretraining_digest",
    "pretraining_settings",
    "starting_backbone",
    "with_precision",
    "without_pretraining",
]
