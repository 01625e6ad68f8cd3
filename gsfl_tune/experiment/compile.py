"""The compilation of a file's nodes into a `Space`, with all problems collected."""

from __future__ import annotations

from collections.abc import Mapping

from gsfl_tune.experiment.conditions import Condition
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import did_you_mean, keys_of, leaves, sections, show
from gsfl_tune.experiment.grammar import KINDS, Grammar, is_named_choice
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.space import Parameter, Space
from gsfl_tune.plugins import ADDED_SECTIONS


def compile_space(root: Node, problems: list[Problem]) -> Space | None:
    """Builds the space of an experiment.

    Args:
        root: The file's mapping.
        problems: Complaints are appended here.

    Returns:
        The space, or None where problems were found.
    """
    before = len(problems)
    walk = _Walk(problems)
    walk.section("", root)
    walk.required(root)
    walk.conflicts()
    ordered = _ordered(walk)
    if ordered is None or len(problems) > before:
        return None
    space = Space(walk.constants, ordered)
    _check_exclusive(space, walk)
    return space if len(problems) == before else None


class _Walk:
    """Walks through the file once, section by section."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.grammar = Grammar(problems)
        self.constants: dict[str, object] = {}
        self.parameters: list[Parameter] = []
        self.nodes: dict[str, Node] = {}

    def section(self, path: str, node: Node) -> None:
        if node.value is None:
            return
        if not isinstance(node.value, dict):
            if node.readable:
                keys = keys_of(path)
                found = show(node.plain())
                message = f"found {found}, allowed a mapping with {keys}"
                self.grammar.complain(node, path, message)
            return
        for key, entry in node.value.items():
            inner = f"{path}.{key}" if path else key
            self.nodes[inner] = entry
            if inner in sections():
                self.section(inner, entry)
            elif not entry.readable:
                continue
            elif inner in leaves():
                self._leaf(inner, entry)
            elif is_named_choice(entry):
                found_choice = self.grammar.named_choice(path, inner, entry)
                if found_choice is not None:
                    self.parameters.append(found_choice)
            else:
                self._unknown(path, key, inner, entry)

    def _leaf(self, path: str, node: Node) -> None:
        found = self.grammar.leaf(leaves()[path], node)
        if found:
            self.parameters.extend(found)
        elif found is not None:
            self.constants[path] = node.plain()

    def _unknown(self, section: str, key: str, path: str, node: Node) -> None:
        if key in KINDS and section:
            message = "a section cannot be searched as a whole"
            if key == "choice":
                message += f"; give the choice a key of its own, such as {section}.variant"
            self.grammar.complain(node, path, message)
            return
        named = [name for name, item in self.nodes.items() if is_named_choice(item)]
        # Names that packages add have their own sections, so they are not suggested elsewhere.
        hint = "" if section in ADDED_SECTIONS else did_you_mean(path, named)
        allowed = "" if hint else f", allowed {keys_of(section)}"
        self.grammar.complain(node, path, f"unknown key{hint or allowed}")

    def required(self, root: Node) -> None:
        for path, leaf in leaves().items():
            if leaf.required and path not in self.nodes:
                home = self.nodes.get(path.rpartition(".")[0], root)
                if home is root or isinstance(home.value, dict | None):
                    self.grammar.complain(home, path, f"is missing, allowed {leaf.allowed}")

    def conflicts(self) -> None:
        """Reports leaves that are set both by the file and by a choice of named mappings."""
        setters: dict[str, str] = {}
        for parameter in self.parameters:
            for path in {path for mapping in parameter.merges.values() for path in mapping}:
                if path in self.nodes:
                    other = f"line {self.nodes[path].line}"
                elif path in setters:
                    other = setters[path]
                else:
                    setters[path] = parameter.path
                    continue
                message = f"sets {path}, as {other} does, allowed is one of them"
                self.grammar.complain(self.nodes[parameter.path], parameter.path, message)


def _place(parameter: Parameter, walk: _Walk) -> Node:
    node = walk.nodes[parameter.path]
    if "@" in parameter.name and isinstance(node.value, list):
        item: Node = node.value[int(parameter.name.rpartition("@")[2])]
        return item
    return node


def _ordered(walk: _Walk) -> list[Parameter] | None:
    """Sorts parameters after those in their conditions; returns None if that is impossible."""
    by_path: dict[str, list[Parameter]] = {}
    for parameter in walk.parameters:
        by_path.setdefault(parameter.path, []).append(parameter)
    sets = {
        leaf: parameter.path
        for parameter in walk.parameters
        for leaves_set in parameter.merges.values()
        for leaf in leaves_set
    }
    good = True
    for parameter in walk.parameters:
        for path, condition in parameter.when.items():
            good &= _check_condition(parameter, path, condition, walk, by_path)
    ordered: list[Parameter] = []
    state: dict[str, str] = {}

    def visit(path: str, trail: tuple[str, ...]) -> bool:
        path = sets.get(path, path)
        if path not in by_path or state.get(path) == "done":
            return True
        if path in trail:
            circle = " -> ".join([*trail[trail.index(path) :], path])
            node = _place(by_path[path][0], walk)
            walk.grammar.complain(node, path, f"the conditions form a cycle: {circle}")
            return False
        for parameter in by_path[path]:
            for other in parameter.when:
                if not visit(other, (*trail, path)):
                    return False
        state[path] = "done"
        ordered.extend(by_path[path])
        return True

    # A cycle is reported once, not from each of its members.
    return ordered if all(visit(path, ()) for path in by_path) and good else None


def _check_condition(
    parameter: Parameter,
    path: str,
    condition: Condition,
    walk: _Walk,
    by_path: Mapping[str, list[Parameter]],
) -> bool:
    node, place = _place(parameter, walk), f"{parameter.name}.when.{path}"
    if isinstance(node.value, dict) and isinstance(node.value.get("when"), Node):
        node = node.value["when"].value.get(path, node)
    leaf = leaves().get(path)
    if leaf is None and path not in by_path:
        named = [name for name in by_path if name not in leaves()]
        walk.grammar.complain(node, place, f"unknown key{did_you_mean(path, named)}")
        return False
    if leaf is None:
        names = by_path[path][0].merges
        wrong = [value for value in condition.values or () if value not in names]
        if wrong or condition.values is None:
            found = show(wrong[0]) if wrong else "a comparison"
            walk.grammar.complain(node, place, f"found {found}, allowed {', '.join(names)}")
            return False
        return True
    if condition.values is None:
        if not leaf.numeric:
            message = f"found {condition.describe()}, allowed {leaf.allowed}"
            walk.grammar.complain(node, place, message)
        return leaf.numeric
    for value in condition.values:
        complaint = leaf.complaint(value)
        if complaint:
            walk.grammar.complain(node, place, complaint)
            return False
    return True


def _check_exclusive(space: Space, walk: _Walk) -> None:
    for group in space.alternatives.values():
        for index, parameter in enumerate(group):
            for other in group[index + 1 :]:
                if not space.exclusive(parameter, other):
                    walk.grammar.complain(
                        _place(other, walk),
                        other.name,
                        f"can hold together with {parameter.name}; the conditions of alternatives "
                        "must exclude each other",
                    )
