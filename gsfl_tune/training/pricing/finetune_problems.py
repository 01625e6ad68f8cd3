"""What a finetune stage cannot do with a backbone, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.models import (
    BackboneError,
    Reads,
    drop_path_problem,
    map_shape,
    mix_style_problem,
    part_problem,
    pooling_class,
    probe,
    restitution_problem,
)
from gsfl_tune.training.image_sizes import growing_sizes
from gsfl_tune.training.pricing.cases import backbone_of
from gsfl_tune.training.restitution import COMPILED, method_problem
from gsfl_tune.training.stages.averaged_problems import AVERAGED_TWICE, STEPS_TOGETHER
from gsfl_tune.training.stages.trained_blocks import unfrozen_blocks


def finetune_problems(case: Experiment) -> Iterator[tuple[str, str]]:
    """Finds settings of the finetune stage that do not fit a backbone.

    Args:
        case: A part of a space with one backbone and one pooling.

    Yields:
        The leaf, and a message.
    """
    if max(case.values("training.finetune.epochs")) == 0:
        return
    name = backbone_of(case)
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
    if problem := _snr(case, name, reads):
        yield "training.finetune.snr", problem
    yield from _sizes(case, name, reads)
    for path, message in (
        ("training.ema", AVERAGED_TWICE),
        ("training.finetune.unfreeze", STEPS_TOGETHER),
    ):
        if any(_with(case, "training.finetune.optimizer", "schedule_free", path)):
            yield path, message
    if any(_with(case, "training.finetune.compile", True, "training.finetune.unfreeze")):
        yield (
            "training.finetune.unfreeze",
            "found it with training.finetune.compile: true, which would compile the network again "
            "for every block that joins; allowed: 0, or compile: false",
        )


def _sizes(case: Experiment, name: str, reads: Reads) -> Iterator[tuple[str, str]]:
    path = "training.finetune.start_size"
    start = min(case.values(path))
    if start == 1:
        return
    if min(_with(case, "training.finetune.compile", True, path), default=1) < 1:
        yield (
            path,
            f"found {start:g} with training.finetune.compile: true, which would compile the "
            "network again for every size; allowed: 1, or compile: false",
        )
    fewest = pooling_class(case.values("model.pooling")[0]).fewest_positions
    epochs = max(2, *case.values("training.finetune.epochs"))
    for whole in case.values("data.image_size"):
        for side in dict.fromkeys(growing_sizes(name, start, whole, epochs)):
            problem = None
            try:
                _, height, width = map_shape(name, side, reads)
                if height * width < fewest:
                    problem = f"which gives a map of {height} x {width} positions"
            except BackboneError as error:
                problem = str(error)
            if problem:
                yield path, f"found {start:g}, for {name} {side} px, {problem}; allowed: 1"
                break


def _snr(case: Experiment, name: str, reads: Reads) -> str | None:
    if True not in case.values("training.finetune.snr"):
        return None
    for blocks in case.values("training.finetune.blocks"):
        for size in case.values("data.image_size"):
            if problem := restitution_problem(name, blocks, size, reads):
                return f"found true, but {problem}; allowed: false"
    return None


def problems_of_snr(experiment: Experiment) -> Iterator[str]:
    """Finds what `training.finetune.snr` cannot be combined with, whatever the backbone."""
    path = "training.finetune.snr"
    if True not in experiment.values(path) or not max(
        experiment.values("training.finetune.epochs")
    ):
        return
    for name in experiment.values("training.method"):
        problem = method_problem(name)
        if problem and True in _with(experiment, "training.method", name, path):
            yield problem
    if True in _with(experiment, "training.finetune.compile", True, path):
        yield COMPILED


def unreached_blocks(case: Experiment) -> Iterator[str]:
    """Yields a sentence where no trial is long enough to train all blocks with `unfreeze`.

    Args:
        case: A part of a space with one backbone and one pooling.

    Raises:
        BackboneError: If there is no such backbone.
    """
    epochs = max(case.values("training.finetune.epochs"))
    name = backbone_of(case)
    reads = pooling_class(case.values("model.pooling")[0]).reads
    for every in case.values("training.finetune.unfreeze"):
        if not (every and epochs):
            continue
        reached = unfrozen_blocks(epochs - 1, every) or 0
        for blocks in case.values("training.finetune.blocks"):
            count = probe(name, reads).blocks
            count = count if blocks == "all" else min(blocks, count)
            if reached < count:
                yield (
                    f"training.finetune.unfreeze: {every} reaches {reached} of the last {count} "
                    f"blocks of {name} in {epochs} epochs; the others are never trained."
                )


def _with(case: Experiment, path: str, value: Any, other: str) -> list[Any]:
    """Lists what a leaf may be in the trials that have a value of another one; may be empty."""
    if value not in case.values(path):
        return []
    return case.fixed({path: value}).values(other)


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
