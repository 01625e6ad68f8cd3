"""Stages: parts of a training with their own frozen weights, learning rate and epochs."""

from gsfl_tune.training.stages._base import Stage
from gsfl_tune.training.stages.finetune import FinetuneStage
from gsfl_tune.training.stages.head import HeadStage
from gsfl_tune.training.stages.work import Work
from gsfl_tune.training.timeline import StageName

# The class for each row of `gsfl_tune.training.timeline.STAGES`: what it computes, and its price.
STAGE_KINDS: dict[StageName, type[HeadStage] | type[FinetuneStage]] = {
    "head": HeadStage,
    "finetune": FinetuneStage,
}

__all__ = ["STAGE_KINDS", "FinetuneStage", "HeadStage", "Stage", "Work"]
