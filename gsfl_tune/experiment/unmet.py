"""Conditions that are never met: their parameters would be left out silently."""

from __future__ import annotations

from gsfl_tune.experiment import edit
from gsfl_tune.experiment.conditions import Condition, representatives
from gsfl_tune.experiment.distributions import Distribution, Float, Scalar
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import show
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.space import Parameter, Space


def unmet_conditions(space: Space, root: Node) -> list[Problem]:
    """Finds values in conditions that a leaf never takes.

    Values of a list are checked one by one. A single number of a range without steps counts
    as well: it is practically never drawn.

    Args:
        space: The compiled space.
        root: The nodes that it was compiled from.
    """
    found = []
    for group in space.alternatives.values():
        for parameter in group:
            for path, condition in parameter.when.items():
                message = _complaint(space, path, condition)
                if message is not None:
                    node = _place(root, parameter, path)
                    place = f"{parameter.name}.when.{path}"
                    found.append(Problem(node.file, node.line, place, message))
    return found


def _complaint(space: Space, path: str, condition: Condition) -> str | None:
    items = space.possible(path)
    parts = [condition]
    if condition.values is not None:
        parts = [Condition((value,)) for value in condition.values]
    never = [part for part in parts if not _fulfilled(items, part)]
    if never:
        listed = ", ".join(part.describe().removeprefix("= ") for part in never)
        left = "" if len(never) < len(parts) else ": it never takes part"
        return f"found {listed}, which no value fulfils; {path} is {described(items)}{left}"
    rare = [part for part in parts if part.values and _by_chance_alone(items, part)]
    if rare:
        listed = ", ".join(part.describe().removeprefix("= ") for part in rare)
        return (
            f"found {listed}, which {path} ({described(items)}) practically never is; allowed a "
            "comparison, such as {ge: ...}, or a range with a step"
        )
    return None


def _fulfilled(items: list[Distribution | tuple[Scalar]], condition: Condition) -> bool:
    return any(condition.holds(value) for value in representatives(items, [condition]))


def _by_chance_alone(items: list[Distribution | tuple[Scalar]], condition: Condition) -> bool:
    """Returns whether a condition holds only at single points of ranges without steps."""
    others = [
        item
        for item in items
        if not (isinstance(item, Float) and item.step is None and item.low < item.high)
    ]
    return len(others) < len(items) and not _fulfilled(others, condition)


def described(items: list[Distribution | tuple[Scalar]]) -> str:
    """Describes the possible values of a leaf."""
    words = [
        show(item[0]).strip("'") if isinstance(item, tuple) else item.describe() for item in items
    ]
    return " or ".join(words) or "nothing"


def _place(root: Node, parameter: Parameter, path: str) -> Node:
    node = edit.find(root, parameter.path)
    if node is not None and isinstance(node.value, list) and "@" in parameter.name:
        node = node.value[int(parameter.name.rpartition("@")[2])]
    if node is not None and isinstance(node.value, dict) and "when" in node.value:
        when = node.value["when"]
        node = when.value.get(path, when) if isinstance(when.value, dict) else when
    return root if node is None else node
