"""Checks of ``search.resources.per_backbone``: the resources of trials with some backbones."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from gsfl_tune.experiment import edit
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import Leaf, leaves, nearest, show
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.shard_checks import alone, processes
from gsfl_tune.experiment.space import Space, ends

_PATH = "search.resources.per_backbone"
# Keys for trials of several processes, and why a head has one.
SEVERAL = ("gpus_per_trial", "workers_per_trial")
NO_FINETUNE_STAGE = (
    "without a finetune stage, allowed 1 (or training.pretrain: true): one process trains the "
    "head, the others would wait"
)
_KEYS = ("cpu", "gpu", "gpus_per_trial", "workers_per_trial", "shard")


def resource_problems(root: Node, space: Space, *, divides: bool) -> Iterator[Problem]:
    """Finds wrong entries, each with its line.

    Args:
        root: The nodes of the experiment.
        space: The compiled space.
        divides: Whether trials have a stage whose batches several processes can share.
    """
    node = edit.find(root, _PATH)
    if node is None or not isinstance(node.value, list):
        return
    names = [str(name) for name in ends(space.possible("model.backbone"))]
    for index, entry in enumerate(node.value):
        yield from _of_entry(f"{_PATH}[{index}]", entry, names, divides=divides)


def _of_entry(place: str, entry: Node, names: list[str], *, divides: bool) -> Iterator[Problem]:
    allowed = f"backbone and at least one of {', '.join(_KEYS)}"
    if not isinstance(entry.value, dict):
        # A list of anything else is refused as such, with the type of the leaf.
        return
    for key, node in entry.value.items():
        if key == "backbone":
            yield from _of_backbone(f"{place}.{key}", node, names)
        elif key not in _KEYS:
            near = nearest(key, ("backbone", *_KEYS))
            message = f"unknown key, allowed {', '.join(('backbone', *_KEYS))}{near}"
            yield Problem(node.file, node.line, f"{place}.{key}", message)
        elif complaint := _leaf(key).complaint(node.plain()):
            yield Problem(node.file, node.line, f"{place}.{key}", complaint)
        elif key in SEVERAL and (node.plain() or 1) > 1 and not divides:
            complaint = f"found {node.plain()} {NO_FINETUNE_STAGE}"
            yield Problem(node.file, node.line, f"{place}.{key}", complaint)
        elif key == "shard" and node.plain() is True:
            count = processes({key: each.plain() for key, each in entry.value.items()})
            if count < 2:
                yield Problem(node.file, node.line, f"{place}.{key}", alone(count))
    if "backbone" not in entry.value or not set(_KEYS) & set(entry.value):
        found = ", ".join(map(str, entry.value)) or "nothing"
        yield Problem(entry.file, entry.line, place, f"found {found}, allowed {allowed}")


def _of_backbone(place: str, node: Node, names: list[str]) -> Iterator[Problem]:
    value = node.plain()
    if isinstance(value, str) and any(fnmatchcase(name, value) for name in names):
        return
    message = (
        f"found {show(value)}, allowed a backbone of the space, or a pattern such as vit_*: "
        f"{', '.join(names)}{nearest(value, names)}"
    )
    yield Problem(node.file, node.line, place, message)


def _leaf(key: str) -> Leaf:
    return leaves()[f"search.resources.{key}"]
