"""The operations of an epoch of the finetune stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gsfl_tune.experiment.config import Config
from gsfl_tune.losses.attributes import ATTRIBUTES, attribute_count
from gsfl_tune.methods import create_method
from gsfl_tune.models import (
    AttentionSettings,
    PartSettings,
    Reads,
    attention_work,
    granularities_work,
    has_batch_norms,
    map_shape,
    part_shapes,
    part_size,
    part_work,
    pooling_class,
    probe,
    zoom_work,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.training.batch_norm import NORM_BATCHES
from gsfl_tune.training.caches.teacher import teacher_sees
from gsfl_tune.training.image_sizes import training_sizes
from gsfl_tune.training.layers import method_layers
from gsfl_tune.training.parts import expected_parts
from gsfl_tune.training.stages.changes_work import changes_work, restorer_work
from gsfl_tune.training.stages.trained_blocks import unfrozen_blocks
from gsfl_tune.training.stages.work import (
    STEP,
    UPDATE,
    Work,
    channels_of_pooling,
    feature_size,
    method_kind,
    trained_head_parameters,
)

# Of Muon: iterations on the smaller of a matrix' products with itself.
_NEWTON_SCHULZ = 5
# Where no gradients of weights are computed.
_STEP_OF_A_PART = 2.0
# What is trained, or the optimiser, where their speed is measured apart.
_OWN_SPEED = ("norms", "biases", "lora", "dora", "muon", "schedule_free")


def finetune_work(config: Config, train: int, validation: int, classes: int) -> Work:
    """Returns the work of the finetune stage, see `Stage.work`."""
    stage, model, size = config.training.finetune, config.model, config.data.image_size
    blocks = stage.blocks
    reads = pooling_class(model.pooling).reads
    if blocks != "all" and blocks >= probe(model.extractor, reads).blocks:
        blocks = "all"
    shown = backbone_work(model.extractor, blocks, config.eval_image_size, reads)
    cached = bool(config.data.views) and blocks != "all"
    head = trained_head_parameters(config, classes)
    steps = max(1, train // stage.batch_size)
    updates = math.ceil(steps / stage.accumulate)
    method = create_method(config.training)
    layers = method_layers(config, method)
    maps = [(each.channels, each.places) for each in layers]
    views, passes = method.views * method.passes_through(len(maps)), method.head_passes
    pooling = pooling_class(model.pooling).operations(channels_of_pooling(config)[0])
    sizes = training_sizes(config)
    passed, updated = _of_stage(config, sizes, blocks, cached)
    taught = 0.0
    if config.training.teacher and config.loss.distill.weight and not cached:
        taught = backbone_work(*_pass_of(config.training.teacher)).frozen
    renewed = 0
    if stage.optimizer == "schedule_free" and has_batch_norms(model.extractor):
        renewed = min(train, NORM_BATCHES * stage.batch_size)
    whole = backbone_work(model.extractor, blocks, size, reads)
    through = views * (passed + STEP * pooling) + 2 * STEP * passes * head
    seen = shown.trained + pooling + (0.0 if cached else shown.frozen)
    if method.recurrence is not None:
        regions = method.recurrence.scales - 1
        # Gradients reach regions through the blocks that are not trained.
        through += regions * (whole.frozen + STEP * zoom_work(size))
        seen += regions * (seen + zoom_work(config.eval_image_size))
    settings = method.detector(expected_parts(config.data), feature_size(config))
    if settings is not None:
        through += STEP * _of_parts(config, size, settings)
        seen += _of_parts(config, config.eval_image_size, settings)
    attends = method.attends(feature_size(config))
    if attends is not None:
        # Once for each pass through the head, as random attention is pooled too.
        through += STEP * passes * _of_attention(config, size, attends)
        seen += _of_attention(config, config.eval_image_size, attends)
    answering = method.granularities(layers, classes) if layers else None
    if answering is not None:
        # Beside the jigsaws, which the method counts, they see the image, and what is predicted.
        through += STEP * granularities_work([each.places for each in layers], answering)
        larger = (config.eval_image_size / size) ** 2
        seen += granularities_work([larger * each.places for each in layers], answering)
    known = {ATTRIBUTES: attribute_count(config.data.attribute_columns)}
    through += STEP * method.operations(maps, stage.batch_size, known)
    if not cached:
        through += changes_work(config, method, sizes)
    if method.unlabelled:
        # A pass of the weak view without gradients, and one of the strong view, of full size both.
        weak = whole.trained + pooling + whole.frozen + 2 * head
        strong, _ = _of_stage(config, (size,) * len(sizes), blocks, cached)
        through += method.unlabelled * (weak + strong + STEP * pooling + 2 * STEP * head)
    operations = (
        train * (through + taught)
        + renewed * seen
        + validation * (seen + 2 * head)
        + (updated + UPDATE * head) * updates
    )
    where = "cached" if cached else "images"
    kind: tuple[str, ...] = (model.extractor, str(blocks), str(size), where)
    kind += tuple(word for word in (stage.train, stage.optimizer) if word in _OWN_SPEED)
    kind += method_kind(config)
    if taught:
        kind += ("taught",)
    if not cached and restorer_work(config):
        kind += ("restorer",)
    return Work("finetune", kind, operations, steps, stage.epochs)


def _of_stage(
    config: Config, sizes: Sequence[int], blocks: int | Literal["all"], cached: bool
) -> tuple[float, float]:
    """Prices the backbone in the finetune stage: means over epochs of what `_of_epoch` returns.

    Args:
        config: The configuration.
        sizes: Side of the images in each epoch, in pixels.
        blocks: Number of blocks that are trained in the end.
        cached: Whether activations in front of them are cached.
    """
    unfreeze = config.training.finetune.unfreeze
    each = [
        _of_epoch(config, unfrozen_blocks(epoch, unfreeze), side, blocks, cached)
        for epoch, side in enumerate(sizes)
    ]
    passed, updated = (math.fsum(values) / len(each) for values in zip(*each, strict=True))
    return passed, updated


def _of_epoch(
    config: Config, unfrozen: int | None, size: int, blocks: int | Literal["all"], cached: bool
) -> tuple[float, float]:
    """Prices the backbone in an epoch of the finetune stage.

    Args:
        config: The configuration.
        unfrozen: How many of the last blocks are trained in it; None for all of them.
        size: Side of its images in pixels.
        blocks: Number of blocks that are trained in the end.
        cached: Whether activations in front of them are cached.

    Returns:
        Operations of a step for one image, and those of an update.
    """
    stage, name = config.training.finetune, config.model.extractor
    reads = pooling_class(config.model.pooling).reads
    whole = backbone_work(name, blocks, size, reads)
    own = blocks
    if unfrozen is not None and unfrozen < (probe(name, reads).blocks if own == "all" else own):
        own = unfrozen
    trained = backbone_work(name, own, size, reads)
    step, parameters = STEP, trained.parameters
    if stage.train != "all":
        step = _STEP_OF_A_PART
        parameters = part_size(name, own, stage.train, stage.adapter_rank, reads)
    # Blocks that are not reached yet are passed forwards alone.
    passed = step * trained.trained + whole.trained - trained.trained
    updated = UPDATE * parameters + _orthogonalising(config, own, reads)
    return passed + (0.0 if cached else whole.frozen), updated


def _of_parts(config: Config, size: int, settings: PartSettings) -> float:
    """Returns the operations of a detector of parts for an image of a side of `size` pixels."""
    reads = pooling_class(config.model.pooling).reads
    channels, height, width = map_shape(config.model.extractor, size, reads)
    return part_work(channels, height * width, settings)


def _of_attention(config: Config, size: int, settings: AttentionSettings) -> float:
    """Returns the operations of attention maps for an image of a side of `size` pixels."""
    reads = pooling_class(config.model.pooling).reads
    channels, height, width = map_shape(config.model.extractor, size, reads)
    return attention_work(channels, height * width, settings)


def _pass_of(teacher: str) -> tuple[str, int, int]:
    """Returns the arguments of `backbone_work` for a pass through a teacher's backbone."""
    name, size = teacher_sees(Path(teacher))
    return name, 0, size


def _orthogonalising(config: Config, blocks: int | Literal["all"], reads: Reads) -> float:
    """Returns the operations of Muon's step, besides those of AdamW."""
    stage = config.training.finetune
    if stage.optimizer != "muon":
        return 0.0
    shapes = part_shapes(config.model.extractor, blocks, stage.train, stage.adapter_rank, reads)
    total = 0.0
    for outputs, *inputs in shapes:
        small, large = sorted((outputs, math.prod(inputs)))
        # X X', its square, and their sum times X.
        total += _NEWTON_SCHULZ * (4 * small**2 * large + 2 * small**3)
    return total
