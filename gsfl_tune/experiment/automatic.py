"""Leaves whose value may be left to the search as ``auto``."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment import edit, nodes
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.names import Automatic
from gsfl_tune.experiment.nodes import Node

# Leaves that follow from `search.time_budget` where the file does not give them.
PLANNED = (
    "training.head.epochs",
    "training.finetune.epochs",
    "search.trials",
    "search.finalists",
    "search.final_seeds",
)
# Epochs of the head stage where no finetune stage follows: they cost little there.
HEAD_ALONE = 30

_HEAD, _FINETUNE = PLANNED[:2]


def resolve(root: Node) -> frozenset[str]:
    """Replaces every ``auto`` by a number.

    Args:
        root: Nodes of the file; changed.

    Returns:
        Paths of the leaves whose value follows from a time budget: those with ``auto`` and, if
        there is a budget, those of `PLANNED` that the file leaves out.
    """
    left_out = {path for path in PLANNED if edit.find(root, path) is None}
    left_out -= {
        path
        for choice_path, choice in edit.named_choices(root).items()
        for option in choice.value["choice"].value.values()
        for path in _paths(option, choice_path.rpartition(".")[0])
    }
    budget = edit.find(root, "search.time_budget")
    planned = left_out if budget is not None and budget.value is not None else set()
    finetune = edit.find(root, _FINETUNE)
    # Left out and not planned, it is the default: none.
    alone = _FINETUNE in left_out - planned if finetune is None else finetune.value == 0
    found = set()
    for path, value in unplanned(alone=alone).items():
        node = edit.find(root, path)
        if node is not None and node.value == "auto":
            edit.put(root, path, nodes.as_node(value, node.file, node.line))
            found.add(path)
    return frozenset(found | planned)


def unplanned(*, alone: bool) -> dict[str, int]:
    """Returns what ``auto`` is until a time budget is planned, by path.

    Args:
        alone: Whether no finetune stage follows the head stage.
    """
    found = {
        path: item.value
        for path, leaf in leaves().items()
        for item in leaf.field.metadata
        if isinstance(item, Automatic)
    }
    return {**found, _HEAD: HEAD_ALONE} if alone else found


def _paths(node: Node, prefix: str) -> Iterator[str]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path
            yield from _paths(child, path)
