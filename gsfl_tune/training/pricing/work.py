"""The operations of a training, stage by stage, as a measure of its cost."""

from __future__ import annotations

from gsfl_tune.experiment.config import Config
from gsfl_tune.training.stages import Work, stage_work
from gsfl_tune.training.timeline import Timeline


def training_work(config: Config, *, train: int, validation: int, classes: int) -> list[Work]:
    """Returns the work of each stage of a training that has epochs.

    Args:
        config: The configuration.
        train: Number of training images.
        validation: Number of images that are validated after every epoch.
        classes: C.

    Raises:
        BackboneError: When the backbone cannot be built.
    """
    return [
        stage_work(each, config, train=train, validation=validation, classes=classes)
        for each in Timeline.of(config).stages
    ]
