"""One optimiser step of the largest model of a space, before a search is paid for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.cost import largest_model
from gsfl_tune.training.stages import FinetuneStage, HeadStage
from gsfl_tune.training.trial import Training
from gsfl_tune.training.workspace import Workspace

_LARGEST = (
    "data.image_size",
    "model.latent_dim",
    "model.pooling_dim",
    "training.head.epochs",
    "training.head.batch_size",
    "training.finetune.epochs",
    "training.finetune.batch_size",
)


def largest_config(experiment: Experiment) -> Config:
    """The configuration of a space that needs most memory for a step.

    Groups are `single`: they take no memory, and computing them needs all features.
    """
    model = largest_model(experiment)
    values: dict[str, Any] = {path: max(experiment.values(path)) for path in _LARGEST}
    blocks = experiment.values("training.finetune.blocks")
    values |= {
        "training.finetune.blocks": "all" if "all" in blocks else max(blocks),
        "model.backbone": model.backbone,
        "model.pooling": model.pooling,
        "model.groups.method": "single",
        "model.groups.count": 1,
    }
    return experiment.fixed(values).defaults()


def rehearse(config: Config, workspace: Workspace) -> None:
    """Takes one optimiser step of every stage on random input of full size.

    Raises:
        torch.OutOfMemoryError: When a GPU cannot hold it.
    """
    with tempfile.TemporaryDirectory() as directory:
        training = Training(config, workspace, Path(directory))
        if training.timeline.head_epochs:
            HeadStage(training).rehearse()
        if training.timeline.finetune_epochs:
            FinetuneStage(training).rehearse()
