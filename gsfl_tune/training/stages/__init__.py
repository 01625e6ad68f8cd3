"""Stages: parts of a training with their own frozen weights, learning rate and epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from gsfl_tune.experiment.config import Config
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.stages._base import Stage
from gsfl_tune.training.stages.finetune import FinetuneStage
from gsfl_tune.training.stages.head import HeadStage
from gsfl_tune.training.stages.work import Work
from gsfl_tune.training.timeline import StageName, StageSpec


class StageKind(Protocol):
    """Makes stages of one kind; a subclass of `Stage` is one."""

    # Whether it needs the device memory that features of the head stage take.
    needs_device: bool

    def __call__(
        self,
        context: StageContext,
        name: StageName = ...,
        before: Mapping[str, Tensor] | None = ...,
    ) -> Stage:
        """Makes a stage.

        Args:
            context: Context of the training, with the configuration of `StageSpec.seen_by`.
            name: Name of the row.
            before: What the stage before it handed on, see `Stage.handed_on`.
        """

    def work(self, config: Config, train: int, validation: int, classes: int) -> Work:
        """Returns the work of an epoch, see `Stage.work`."""


# The class of each kind of `gsfl_tune.training.timeline.STAGES`: what it computes, and its price.
STAGE_KINDS: dict[StageName, StageKind] = {
    "head": HeadStage,
    "finetune": FinetuneStage,
}


def stage_work(
    spec: StageSpec, config: Config, *, train: int, validation: int, classes: int
) -> Work:
    """Returns the work of an epoch of a stage, see `Stage.work`.

    Args:
        spec: The row of the stage, which has epochs.
        config: The configuration.
        train: Number of training images.
        validation: Number of images that are validated after every epoch.
        classes: C.
    """
    work = STAGE_KINDS[spec.kind].work(spec.seen_by(config), train, validation, classes)
    return replace(work, stage=spec.name)


__all__ = [
    "STAGE_KINDS",
    "FinetuneStage",
    "HeadStage",
    "Stage",
    "StageKind",
    "Work",
    "stage_work",
]
