"""Stages: stretches of training with their own frozen part, learning rate and epochs."""

from gsfl_tune.training.stages._base import Stage
from gsfl_tune.training.stages.finetune import FinetuneStage
from gsfl_tune.training.stages.head import HeadStage

__all__ = ["FinetuneStage", "HeadStage", "Stage"]
