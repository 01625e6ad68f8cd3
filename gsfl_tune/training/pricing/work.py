"""The operations of a training, stage by stage, as a measure of its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gsfl_tune.experiment.config import Config
from gsfl_tune.methods import create_method, method_class
from gsfl_tune.models import (
    Reads,
    part_shapes,
    part_size,
    pooling_class,
    pooling_dim,
    probe,
    projection_channels,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.training.caches.teacher import teacher_sees
from gsfl_tune.training.pricing.cost import head_parameters
from gsfl_tune.training.timeline import StageName

# Of an optimiser step, for each trained parameter: AdamW reads and writes weight, gradient and two
# moments, which takes as long as some 60 operations of a matrix product.
_UPDATE = 60.0
# Of Muon: iterations on the smaller of a matrix' products with itself.
_NEWTON_SCHULZ = 5
# A training step does the work of a forward pass three times: one is for gradients of weights.
_STEP = 3.0
_STEP_OF_A_PART = 2.0


# What is trained, or the optimiser, where their speed is measured apart.
_OWN_SPEED = ("norms", "biases", "lora", "dora", "muon")


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
    """

    stage: StageName
    kind: tuple[str, ...]
    operations: float
    steps: int
    epochs: int


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
    stages = [_head(config, train, validation, classes)]
    if config.training.finetune.epochs:
        stages.append(_finetune(config, train, validation, classes))
    return [stage for stage in stages if stage.epochs]


def _head(config: Config, train: int, validation: int, classes: int) -> Work:
    stage = config.training.head
    parameters = _head_parameters(config, classes)
    steps = math.ceil(train / stage.batch_size)
    passes = method_class(config.training.method).head_passes
    operations = 2 * parameters * (_STEP * passes * train + validation)
    operations += _UPDATE * parameters * steps
    return Work("head", (config.model.head, *_method(config)), operations, steps, stage.epochs)


def _finetune(config: Config, train: int, validation: int, classes: int) -> Work:
    stage, model, size = config.training.finetune, config.model, config.data.image_size
    blocks = stage.blocks
    reads = pooling_class(model.pooling).reads
    if blocks != "all" and blocks >= probe(model.backbone, reads).blocks:
        blocks = "all"
    backbone = backbone_work(model.backbone, blocks, size, reads)
    shown = backbone_work(model.backbone, blocks, config.eval_image_size, reads)
    cached = bool(config.data.views) and blocks != "all"
    head = _head_parameters(config, classes)
    steps = max(1, train // stage.batch_size)
    updates = math.ceil(steps / stage.accumulate)
    frozen, shown_frozen = (0.0, 0.0) if cached else (backbone.frozen, shown.frozen)
    method = method_class(config.training.method)
    views, passes = method.views * method.feature_passes, method.head_passes
    pooling = pooling_class(model.pooling).operations(_channels(config))
    whole = stage.train == "all"
    trained, step = backbone.parameters, _STEP if whole else _STEP_OF_A_PART
    if not whole:
        trained = part_size(model.backbone, blocks, stage.train, stage.adapter_rank, reads)
    taught = 0.0
    if config.training.teacher and config.loss.distill.weight and not cached:
        taught = backbone_work(*_pass_of(config.training.teacher)).frozen
    forward = step * backbone.trained + _STEP * pooling + frozen
    through = views * forward + 2 * _STEP * passes * head
    # A pass of the weak view without gradients, and one of the strong view.
    weak = backbone.trained + pooling + frozen + 2 * head
    more = create_method(config.training).unlabelled
    through += more * (weak + forward + 2 * _STEP * head)
    operations = (
        train * (through + taught)
        + validation * (shown.trained + pooling + 2 * head + shown_frozen)
        + (_UPDATE * (trained + head) + _orthogonalising(config, reads)) * updates
    )
    where = "cached" if cached else "images"
    kind: tuple[str, ...] = (model.backbone, str(blocks), str(size), where)
    kind += tuple(word for word in (stage.train, stage.optimizer) if word in _OWN_SPEED)
    kind += _method(config)
    if taught:
        kind += ("taught",)
    return Work("finetune", kind, operations, steps, stage.epochs)


def _pass_of(teacher: str) -> tuple[str, int, int]:
    """Returns the arguments of `backbone_work` for a pass through a teacher's backbone."""
    name, size = teacher_sees(Path(teacher))
    return name, 0, size


def _orthogonalising(config: Config, reads: Reads) -> float:
    """Returns the operations of Muon's step, besides those of AdamW."""
    stage = config.training.finetune
    if stage.optimizer != "muon":
        return 0.0
    shapes = part_shapes(
        config.model.backbone, stage.blocks, stage.train, stage.adapter_rank, reads
    )
    total = 0.0
    for outputs, *inputs in shapes:
        small, large = sorted((outputs, math.prod(inputs)))
        # X X', its square, and their sum times X.
        total += _NEWTON_SCHULZ * (4 * small**2 * large + 2 * small**3)
    return total


def _method(config: Config) -> tuple[str, ...]:
    """Returns the part of a kind of work that the method decides."""
    name = config.training.method
    return () if name == "single" else (name,)


def _channels(config: Config) -> int:
    """Channels that the pooling sees."""
    model = config.model
    channels = probe(model.backbone, pooling_class(model.pooling).reads).channels
    return projection_channels(model.pooling, model.pooling_channels, channels) or channels


def _head_parameters(config: Config, classes: int) -> int:
    model = config.model
    dim = pooling_dim(model.pooling, _channels(config), dim=model.pooling_dim)
    return head_parameters(model.head, dim, model.latent_dim, classes)
