"""One optimiser step of the largest model of a space, as a test before a search."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gsfl_tune.activity import activity
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.heap import give_back
from gsfl_tune.training.pricing.cost import largest_case
from gsfl_tune.training.pricing.methods import largest_method, largest_settings
from gsfl_tune.training.stages import STAGE_KINDS
from gsfl_tune.training.timeline import STAGES
from gsfl_tune.training.training import Training
from gsfl_tune.training.workspace import Workspace

_LARGEST = (
    "data.image_size",
    "model.latent_dim",
    "model.pooling_dim",
    "training.head.epochs",
    "training.head.batch_size",
    "training.head.generate.share",
    "training.head.generate.steps",
    "training.head.generate.critic_steps",
    "training.head.generate.batch_size",
    "training.head.generate.noise_dim",
    "training.head.generate.hidden_dim",
    "training.finetune.epochs",
    "training.finetune.batch_size",
    "training.finetune.compile",
    "training.finetune.start_size",
    "training.finetune.adapter_rank",
    "training.ema",
    # The teacher's pass needs memory.
    "loss.distill.weight",
    # Images without attributes are refused here.
    "loss.attributes.weight",
)
# AdamW keeps two tensors a weight, schedule-free AdamW too.
_BY_MOMENTS = ("sgd", "muon", "schedule_free", "adamw")
# What is trained of blocks, by the memory that it takes.
_BY_MEMORY = ("biases", "norms", "lora", "dora", "all")


def largest_config(experiment: Experiment) -> Config:
    """Returns the configuration of a space that needs most memory for a step.

    Groups are `single`: they take no memory, and computing them needs all features.
    """
    case, model = largest_case(experiment)
    values: dict[str, Any] = {path: max(case.values(path)) for path in _LARGEST}
    blocks = case.values("training.finetune.blocks")
    # All views of a batch are in memory at once.
    method = max(case.values("training.method"), key=lambda name: _at_once(case, name))
    values |= {
        **largest_settings(case, method),
        "training.method": method,
        "training.finetune.blocks": "all" if "all" in blocks else max(blocks),
        # All take as much for activations; the others keep less of weights.
        "training.finetune.train": max(
            case.values("training.finetune.train"), key=_BY_MEMORY.index
        ),
        "training.head.optimizer": min(case.values("training.head.optimizer")),
        "training.finetune.optimizer": max(
            case.values("training.finetune.optimizer"), key=_BY_MOMENTS.index
        ),
        # Later on all blocks are trained.
        "training.finetune.unfreeze": min(case.values("training.finetune.unfreeze")),
        "model.pooling_channels": None if model.pooling == "average" else model.channels,
        # Takes no memory either, and needs all features.
        "model.classifier_init": "random",
        "model.groups.method": "single",
        "model.groups.count": 1,
    }
    return case.fixed(values).defaults()


def _at_once(case: Experiment, name: str) -> tuple[int, int, int, bool]:
    """Returns images with gradients for each of a batch, passes, maps that are read, and parts."""
    method = largest_method(case, name)
    further = method.detector(1, 1) is not None or method.attends(1) is not None
    return method.views + method.unlabelled, method.feature_passes, method.layers, further


def rehearse(config: Config, workspace: Workspace) -> None:
    """Takes one optimiser step of every stage on random input of full size.

    Raises:
        torch.OutOfMemoryError: When a GPU cannot hold it.
    """
    with tempfile.TemporaryDirectory() as directory:
        training = Training(config, workspace, Path(directory))
        with activity("taking the step"):
            for spec in training.timeline.stages:
                STAGE_KINDS[spec.kind](training.context.of_stage(spec), spec.name).rehearse()
        del training
    give_back(collect=False)


def of_a_process(config: Config, workers: int) -> Config:
    """Returns the configuration with the batches that one of several processes sees."""
    shared: dict[str, object] = {}
    for name in (each.name for each in STAGES if each.divided):
        stage = getattr(config.training, name)
        size = max(2, -(-stage.batch_size // workers))
        shared[name] = stage.model_copy(update={"batch_size": size})
    training = config.training.model_copy(update=shared)
    return config.model_copy(update={"training": training})
