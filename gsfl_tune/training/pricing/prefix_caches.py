"""Caches of activations that the trials of a space may fill."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gsfl_tune.experiment import Experiment
from gsfl_tune.models import CannotCut, Reads, boundary_shape, probe
from gsfl_tune.training.pricing.cases import backbone_of, cases, reads_of

_BYTES = {"fp32": 4, "fp16": 2}


@dataclass(frozen=True)
class PrefixCache:
    """Describes a cache of activations in front of trained blocks, and its size.

    Attributes:
        backbone: The backbone.
        blocks: How many of its last blocks are trained.
        image_size: Side of the images in pixels.
        views: Fixed views of an image; the cache also holds its centre.
        image_bytes: Bytes of one image in all views.
        problem: Why the backbone cannot be cut there; the whole backbone then runs.
        reads: What the pooling reads of it.
    """

    backbone: str
    blocks: int
    image_size: int
    views: int
    image_bytes: int
    problem: str | None = None
    reads: Reads = "map"


def prefix_caches(experiment: Experiment) -> list[PrefixCache]:
    """Returns every cache of activations that trials of a space may fill, the largest first.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    caches: dict[tuple[str, int, int, Reads], PrefixCache] = {}
    for case in cases(experiment):
        views = max(case.values("data.views"))
        if views == 0 or max(case.values("training.finetune.epochs")) == 0:
            continue
        each = max(_BYTES[name] for name in case.values("training.cache_precision"))
        backbone, reads = backbone_of(case), reads_of(case)
        others = case.values("data.eval_image_size")
        for size in case.values("data.image_size"):
            for blocks in case.values("training.finetune.blocks"):
                if blocks == "all" or blocks >= probe(backbone, reads).blocks:
                    continue
                count, problem = 0, None
                try:
                    count = views * math.prod(boundary_shape(backbone, blocks, size, reads))
                    # Of each image also the centre, at its own size.
                    largest = max(size if each is None else each for each in others)
                    count += math.prod(boundary_shape(backbone, blocks, largest, reads))
                except CannotCut as error:
                    problem = str(error)
                caches[backbone, blocks, size, reads] = PrefixCache(
                    backbone, blocks, size, views, count * each, problem, reads
                )
    return sorted(caches.values(), key=lambda cache: -cache.image_bytes)


def whole_backbones(experiment: Experiment) -> list[tuple[str, int, int]]:
    """Returns backbones for which a block count of the space covers all: name, that count, all.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    found = {}
    for case in cases(experiment):
        backbone = backbone_of(case)
        count = probe(backbone, reads_of(case)).blocks
        for blocks in case.values("training.finetune.blocks"):
            if blocks != "all" and blocks >= count:
                found[backbone, blocks] = (backbone, blocks, count)
    return list(found.values())
