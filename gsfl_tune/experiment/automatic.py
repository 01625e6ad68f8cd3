"""Leaves whose value may be left to the search as ``auto``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Leaf:
    path: str
    value: int


def resolve(root: Node) -> frozenset[str]:
    """Replaces every ``auto`` by a number.

    Args:
        root: Nodes of the file; changed.

    Returns:
        Paths of the leaves whose value follows from a time budget: those with ``auto`` and, if
        there is a budget, those of `PLANNED` that the file leaves out.
    """
    found = set()
    for leaf in _automatic():
        node = edit.find(root, leaf.path)
        if node is not None and node.value == "auto":
            value = HEAD_ALONE if leaf.path == _HEAD and _is_zero(root, _FINETUNE) else leaf.value
            edit.put(root, leaf.path, nodes.as_node(value, node.file, node.line))
            found.add(leaf.path)
    budget = edit.find(root, "search.time_budget")
    if budget is not None and budget.value is not None:
        left_out = {path for path in PLANNED if edit.find(root, path) is None}
        set_by_name = {
            path
            for choice_path, choice in edit.named_choices(root).items()
            for option in choice.value["choice"].value.values()
            for path in _paths(option, choice_path.rpartition(".")[0])
        }
        found |= left_out - set_by_name
    return frozenset(found)


def _is_zero(root: Node, path: str) -> bool:
    node = edit.find(root, path)
    return node is not None and node.value == 0


def _automatic() -> Iterator[_Leaf]:
    for path, leaf in leaves().items():
        for item in leaf.field.metadata:
            if isinstance(item, Automatic):
                yield _Leaf(path, item.value)


def _paths(node: Node, prefix: str) -> Iterator[str]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path
            yield from _paths(child, path)
