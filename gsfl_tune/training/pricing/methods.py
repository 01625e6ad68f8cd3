"""The largest form of a method of training in a space, and the memory of what it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any, TypeVar

import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import TrainingConfig
from gsfl_tune.experiment.methods import METHOD_SECTIONS
from gsfl_tune.losses import Sizes
from gsfl_tune.methods import Method, create_method
from gsfl_tune.models import (
    AttentionSettings,
    GranularitySettings,
    Layer,
    PartSettings,
    Recurrence,
    probe,
)
from gsfl_tune.plugins import PluginError
from gsfl_tune.training.pricing.cases import backbone_of

T = TypeVar("T")

# Words among settings of methods that take more memory than the others.
_LARGER = ("joint",)


def largest_settings(case: Experiment, name: str) -> dict[str, Any]:
    """Returns the largest value of each setting of a method, by leaf.

    Args:
        case: A part of a space.
        name: Name of the method.
    """
    if name not in METHOD_SECTIONS:
        return {}
    found = {}
    for key in getattr(TrainingConfig(), name).model_dump():
        path = f"training.{name}.{key}"
        values = case.values(path)
        # Words do not say which of them is large; of most all take the same memory.
        if not all(isinstance(v, Number) for v in values):
            values = [each for each in values if each in _LARGER] or values[:1]
        found[path] = max(values)
    return found


def largest_method(case: Experiment, name: str) -> Method:
    """Makes a method with the largest settings of a space.

    Raises:
        PluginError: If one of a package cannot be made.
    """
    settings = {
        path.rpartition(".")[2]: value for path, value in largest_settings(case, name).items()
    }
    given = {name: settings} if settings else {}
    return create_method(TrainingConfig.model_validate({"method": name, **given}))


def recurrences(case: Experiment) -> list[Recurrence]:
    """Lists how the largest methods of a space that see regions of images see them."""
    return _asked(case, lambda method: method.recurrence)


def detectors(case: Experiment, count: int, dim: int) -> list[PartSettings]:
    """Lists the detectors of the largest methods of a space that find parts.

    Args:
        case: A part of a space.
        count: Number of parts.
        dim: D of its largest features.
    """
    return _asked(case, lambda method: method.detector(count, dim))


def attentions(case: Experiment, dim: int) -> list[AttentionSettings]:
    """Lists the attention of the largest methods of a space whose networks have some.

    Args:
        case: A part of a space.
        dim: D of its largest features.
    """
    return _asked(case, lambda method: method.attends(dim))


def granularities(
    case: Experiment, layers: Sequence[Layer], class_count: int
) -> list[GranularitySettings]:
    """Lists the classifiers behind blocks of the largest methods of a space that predict with them.

    Args:
        case: A part of a space.
        layers: The maps behind the blocks that are trained, the last block's first.
        class_count: C.
    """

    def ask(method: Method) -> GranularitySettings | None:
        read = layers[: method.layers]
        return method.granularities(read, class_count) if read else None

    return _asked(case, ask)


def _asked(case: Experiment, ask: Callable[[Method], T | None]) -> list[T]:
    """Lists what the largest methods of a space ask for, of those that do."""
    found = []
    for name in case.values("training.method"):
        try:
            asked = ask(largest_method(case, name))
        except PluginError:  # said elsewhere
            continue
        if asked is not None:
            found.append(asked)
    return found


def numbers_of_methods(case: Experiment, sizes: Sizes) -> int:
    """Counts the numbers that the largest method of a space keeps, gradients and moments included.

    Args:
        case: A part of a space.
        sizes: Sizes of its largest head.
    """
    most = 0
    for name in case.values("training.method"):
        try:
            method = largest_method(case, name)
        except PluginError:  # said elsewhere
            continue
        most = max(most, _numbers(case, method, sizes))
    return most


def _numbers(case: Experiment, method: Method, sizes: Sizes) -> int:
    if method.layers and max(case.values("training.finetune.epochs")):
        # Most models have most channels in the last map.
        channels = probe(backbone_of(case)).channels
        sizes = replace(sizes, layers=(channels,) * method.layers)
    groups = torch.zeros(sizes.class_count, dtype=torch.int64)
    sizes = replace(sizes, groups=groups)
    try:
        # Nothing is allocated there: classifiers of a large map take gigabytes.
        with torch.device("meta"):
            method.build(sizes)
    except (NotImplementedError, RuntimeError):  # reads values of what it makes
        method.build(sizes)
    # A parameter has a gradient, and two moments of AdamW.
    trained = sum(each.numel() for each in method.parameters())
    return 4 * trained + sum(each.numel() for each in method.buffers())
