"""The parts of a space that are priced one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.model_config import joined_names
from gsfl_tune.models import Reads, pooling_class

# The last experiments with their cases. They are mutable in principle, so they are not hashed.
_known: deque[tuple[Experiment, tuple[Experiment, ...]]] = deque(maxlen=4)


def cases(experiment: Experiment) -> tuple[Experiment, ...]:
    """Returns the experiment for each named mapping, backbones, pooling and head of a trial.

    Every question about a price goes through them, so the last ones are kept.
    """
    for one, found in list(_known):
        if one is experiment:
            return found
    named = [parameter.path for parameter in experiment.space.parameters if parameter.merges]
    own = ("backbone", "pooling", "backbone_b", "layer_b", "head")
    paths = [*named, *(f"model.{leaf}" for leaf in own)]

    def fixed(one: Experiment, rest: list[str]) -> Iterator[Experiment]:
        if not rest:
            yield one
            return
        values = one.values(rest[0])
        if len(values) == 1:
            yield from fixed(one, rest[1:])
            return
        for value in values:
            yield from fixed(one.fixed({rest[0]: value}), rest[1:])

    found = tuple(fixed(experiment, paths))
    _known.append((experiment, found))
    return found


def backbone_of(case: Experiment) -> str:
    """Returns the backbone of a case: `ModelConfig.extractor` of its trials."""
    leaves = ("backbone", "backbone_b", "pooling", "layer_b")
    return joined_names(*(case.values(f"model.{leaf}")[0] for leaf in leaves))


def reads_of(case: Experiment) -> Reads:
    """Returns what the one pooling of a case reads."""
    return pooling_class(case.values("model.pooling")[0]).reads
