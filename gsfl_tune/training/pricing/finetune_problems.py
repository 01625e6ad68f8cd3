"""What a finetune stage cannot do with a backbone, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment import Experiment
from gsfl_tune.models import (
    BackboneError,
    Reads,
    drop_path_problem,
    mix_style_problem,
    part_problem,
    pooling_class,
    probe,
)


def finetune_problems(case: Experiment) -> Iterator[tuple[str, str]]:
    """Finds settings of the finetune stage that do not fit a backbone.

    Args:
        case: A part of a space with one backbone and one pooling.

    Yields:
        The leaf, and a message.
    """
    if max(case.values("training.finetune.epochs")) == 0:
        return
    name = case.values("model.backbone")[0]
    reads = pooling_class(case.values("model.pooling")[0]).reads
    try:
        _ = probe(name, reads)
    except BackboneError:  # said elsewhere
        return
    if problem := _blocks(case, name, reads):
        yield "training.finetune.blocks", problem
    if problem := _part(case, name, reads):
        yield "training.finetune.train", problem
    if problem := _drop_path(case, name):
        yield "training.finetune.drop_path", problem
    if problem := _mixstyle(case, name, reads):
        yield "training.finetune.mixstyle", problem


def _blocks(case: Experiment, name: str, reads: Reads) -> str | None:
    numbers = [n for n in case.values("training.finetune.blocks") if n != "all"]
    if not numbers or probe(name, reads).blocks > 1:
        return None
    return f"found {min(numbers)}, but {name} is a single block; allowed: all"


def _part(case: Experiment, name: str, reads: Reads) -> str | None:
    for part in case.values("training.finetune.train"):
        for blocks in case.values("training.finetune.blocks"):
            if problem := part_problem(name, blocks, part, reads):
                return f"found {part}, but {problem}; allowed: all"
    return None


def _drop_path(case: Experiment, name: str) -> str | None:
    rate = max(case.values("training.finetune.drop_path"))
    problem = drop_path_problem(name) if rate > 0 else None
    return problem and f"found {rate:g}, but {problem}; allowed: 0"


def _mixstyle(case: Experiment, name: str, reads: Reads) -> str | None:
    share = max(case.values("training.finetune.mixstyle"))
    if share <= 0:
        return None
    for blocks in case.values("training.finetune.blocks"):
        count = probe(name, reads).blocks if blocks == "all" else blocks
        for size in case.values("data.image_size"):
            if problem := mix_style_problem(name, count, size, reads):
                return f"found {share:g}, but {problem}; allowed: 0"
    return None
