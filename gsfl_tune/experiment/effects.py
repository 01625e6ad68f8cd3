"""Searched parameters without effect, as no trial of the space has what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gsfl_tune.experiment import edit
from gsfl_tune.experiment.conditions import Condition, describe, representatives
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.needs import needs_of
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.space import Parameter, Space
from gsfl_tune.experiment.unmet import described


def without_effect(space: Space, root: Node) -> list[Problem]:
    """Finds parameters without effect in every trial.

    Args:
        space: The compiled space, with possible numbers from a time budget.
        root: The nodes that it was compiled from.
    """
    found = []
    for parameter in space.parameters:
        needs = needs_of(parameter.path)
        if needs and not any(_possible(space, need) for need in needs):
            node = _place(root, parameter)
            found.append(
                Problem(node.file, node.line, parameter.name, _complaint(space, parameter, needs))
            )
    return found


def _possible(space: Space, need: Mapping[str, Condition]) -> bool:
    return all(_holds(space, path, condition) for path, condition in need.items())


def _holds(space: Space, path: str, condition: Condition) -> bool:
    values = representatives(space.possible(path), [condition])
    return any(condition.holds(value) for value in values)


def _complaint(space: Space, parameter: Parameter, needs: Sequence[Mapping[str, Condition]]) -> str:
    wanted = " or ".join(describe(need) for need in needs)
    unmet = {
        path: described(space.possible(path))
        for need in needs
        for path, condition in need.items()
        if not _holds(space, path, condition)
    }
    found = ", ".join(f"{path} is {values}" for path, values in unmet.items())
    draw = parameter.distribution.describe()
    return f"found {draw}, which has no effect: it needs {wanted}, and {found}"


def _place(root: Node, parameter: Parameter) -> Node:
    node = edit.find(root, parameter.path)
    if node is not None and isinstance(node.value, list) and "@" in parameter.name:
        node = node.value[int(parameter.name.rpartition("@")[2])]
    return root if node is None else node
