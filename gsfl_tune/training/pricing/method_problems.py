"""What methods of training do not get in a space, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment import Experiment
from gsfl_tune.methods import method_class
from gsfl_tune.models import (
    BackboneError,
    CannotCut,
    boundary_shape,
    gives_map,
    map_shape,
    pooling_class,
    probe,
)
from gsfl_tune.training.pricing.cases import backbone_of
from gsfl_tune.training.stages.method_problems import method_problems

_LARGEST = ("data.views", "training.finetune.mixup", "training.finetune.cutmix")
_DISTILL = "loss.distill.weight"


def problems_of_methods(case: Experiment) -> Iterator[tuple[str, str]]:
    """Finds methods that cannot be combined with what else a trial may have.

    Args:
        case: A part of a space with one backbone and one pooling.

    Yields:
        The leaf, and a message.
    """
    if max(case.values("training.finetune.epochs")) == 0:
        return
    names = case.values("training.method")
    for name in names:
        method = method_class(name)
        asks = method.reads_maps or method.needs_images or method.unmixed or method.unblended
        if not asks:
            continue
        own = case if len(names) == 1 else case.fixed({"training.method": name})
        yield from _of_method(own)


def _of_method(case: Experiment) -> Iterator[tuple[str, str]]:
    largest = {path: max(case.values(path)) for path in (*_LARGEST, _DISTILL)}
    backbone = backbone_of(case)
    reads = pooling_class(case.values("model.pooling")[0]).reads
    size = min(case.values("data.image_size"))
    for blocks in case.values("training.finetune.blocks"):
        try:
            cut = blocks != "all" and blocks < probe(backbone, reads).blocks
            if cut:
                boundary_shape(backbone, blocks, size, reads)
        except CannotCut:
            cut = False
        except BackboneError:  # said elsewhere
            return
        maps = gives_map(backbone, blocks if cut else "all", reads)
        config = case.fixed({**largest, "training.finetune.blocks": blocks}).defaults()
        cached = cut and config.data.views > 0
        yield from method_problems(config, cached=cached, maps=maps)
    name = config.training.method
    if not method_class(name).reads_maps:
        return
    try:
        _, height, width = map_shape(backbone, size, reads)
    except BackboneError:  # said elsewhere
        return
    if height * width == 1:
        yield (
            "training.method",
            f"found {name}, but {backbone} gives a map of one position for images of {size} px; "
            "allowed: single, or a larger data.image_size",
        )
