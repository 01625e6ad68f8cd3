"""The grammar of a file: distributions, conditions, alternatives and named mappings."""

from __future__ import annotations

from typing import Any

from gsfl_tune.experiment.conditions import COMPARISONS, Condition
from gsfl_tune.experiment.distributions import Categorical, Distribution, Float, Integer, is_number
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import MISSING, Leaf, did_you_mean, leaves, nearest, sections, show
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.space import Parameter

KINDS = ("choice", "int", "float")
_KEYS = {
    "choice": ("choice", "default", "when", "else"),
    "int": ("int", "log", "step", "default", "when", "else"),
    "float": ("float", "log", "step", "default", "when", "else"),
}


def is_named_choice(node: Node) -> bool:
    """Returns whether it is ``{choice: {name: {...}, ...}}``."""
    if not isinstance(node.value, dict) or "choice" not in node.value:
        return False
    options = node.value["choice"].value
    return isinstance(options, dict) and all(
        option.value is None or isinstance(option.value, dict) for option in options.values()
    )


class Grammar:
    """Turns nodes into parameters; complaints go to one list."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems

    def complain(self, node: Node, path: str, message: str) -> None:
        """Adds a problem at a node."""
        self._problems.append(Problem(node.file, node.line, path, message))

    def leaf(self, leaf: Leaf, node: Node) -> list[Parameter] | None:
        """Parses the parameters of a leaf; an empty list for a constant, None for a bad value."""
        value = node.value
        if isinstance(value, dict):
            found = self.distribution(leaf, node, leaf.path)
            return None if found is None else [found]
        if isinstance(value, list) and not leaf.takes_list:
            return self._alternatives(leaf, node)
        complaint = leaf.complaint(node.plain())
        if complaint:
            self.complain(node, leaf.path, complaint)
            return None
        return []

    def _alternatives(self, leaf: Leaf, node: Node) -> list[Parameter] | None:
        items: list[Node] = node.value
        if not items or not all(isinstance(item.value, dict) for item in items):
            hint = "to search over a list of values write {choice: [...]}"
            self.complain(node, leaf.path, f"found a list, allowed {leaf.allowed}; {hint}")
            return None
        found = [
            self.distribution(leaf, item, f"{leaf.path}@{index}")
            for index, item in enumerate(items)
        ]
        good = [parameter for parameter in found if parameter is not None]
        for item, parameter in zip(items, found, strict=True):
            if len(items) > 1 and parameter is not None and not parameter.when:
                message = "an alternative without `when`; alternatives must exclude each other"
                self.complain(item, parameter.name, message)
        if sum(parameter.otherwise is not MISSING for parameter in good) > 1:
            self.complain(node, leaf.path, "found `else` in several alternatives, allowed in one")
        return good if len(good) == len(items) else None

    def distribution(self, leaf: Leaf, node: Node, name: str) -> Parameter | None:
        """Parses one distribution mapping of a leaf; returns None where it is wrong."""
        before = len(self._problems)
        if leaf.not_searched is not None:
            self.complain(
                node, name, f"found a mapping, allowed {leaf.allowed}; {leaf.not_searched}"
            )
            return None
        kind = self._kind(node, name, leaf)
        if kind is None:
            return None
        entries: dict[str, Node] = node.value
        draw = self._draw(leaf, kind, entries, name)
        otherwise = MISSING
        if "else" in entries:
            otherwise = entries["else"].plain()
            complaint = leaf.complaint(otherwise)
            if complaint:
                self.complain(entries["else"], f"{name}.else", complaint)
            if "when" not in entries:
                self.complain(entries["else"], f"{name}.else", "found `else` without `when`")
        when = self._when(entries["when"], name) if "when" in entries else {}
        if draw is None or len(self._problems) > before:
            return None
        return Parameter(name, leaf.path, draw, when, otherwise)

    def _kind(self, node: Node, name: str, leaf: Leaf | None) -> str | None:
        entries: dict[str, Node] = node.value
        kinds = [kind for kind in KINDS if kind in entries]
        if len(kinds) != 1:
            found = (
                " and ".join(kinds)
                if kinds
                else f"a mapping with {', '.join(entries) or 'no keys'}"
            )
            allowed = f"{leaf.allowed}, or " if leaf else ""
            self.complain(
                node,
                name,
                f"found {found}, allowed {allowed}one of {{choice: [...]}}, {{int: [low, high]}}, "
                "{float: [low, high]}",
            )
            return None
        kind = kinds[0]
        for key, entry in entries.items():
            if key not in _KEYS[kind]:
                hint = nearest(key, _KEYS[kind])
                allowed = ", ".join(_KEYS[kind])
                self.complain(entry, f"{name}.{key}", f"unknown key, allowed {allowed}{hint}")
        return kind

    def _draw(
        self, leaf: Leaf, kind: str, entries: dict[str, Node], name: str
    ) -> Distribution | None:
        before = len(self._problems)
        body = entries[kind]
        options: dict[str, Any] = {}
        if "default" in entries:
            options["default"] = entries["default"].plain()
            if isinstance(entries["default"].value, dict | list):
                self.complain(
                    entries["default"], f"{name}.default", "found a collection, allowed a scalar"
                )
        if kind == "choice":
            return self._choice(leaf, body, options, name, before)
        if not isinstance(body.value, list) or len(body.value) != 2:
            found = show(body.plain())
            if isinstance(body.value, list):
                found = f"a list of {len(body.value)}"
            self.complain(body, f"{name}.{kind}", f"found {found}, allowed [low, high]")
            return None
        if not leaf.numeric:
            self.complain(body, f"{name}.{kind}", f"found a range, allowed {leaf.allowed}")
            return None
        for bound in body.value:
            number = bound.value
            right = is_number(number) and (kind == "float" or isinstance(number, int))
            if not right:
                noun = "an integer" if kind == "int" else "a number"
                self.complain(
                    bound, f"{name}.{kind}", f"found the bound {show(number)}, allowed {noun}"
                )
            elif complaint := leaf.complaint(float(number) if kind == "float" else number):
                if kind == "float" and leaf.accepts(int(number)):
                    complaint = f"found a float range, allowed {leaf.allowed}"
                    self.complain(body, f"{name}.{kind}", complaint)
                    break
                self.complain(bound, f"{name}.{kind}", f"bound out of range: {complaint}")
        if "log" in entries:
            options["log"] = entries["log"].value
            if not isinstance(entries["log"].value, bool):
                found = show(entries["log"].plain())
                self.complain(
                    entries["log"], f"{name}.log", f"found {found}, allowed true or false"
                )
        if "step" in entries:
            step = options["step"] = entries["step"].value
            if not is_number(step) or (kind == "int" and not isinstance(step, int)):
                found = show(entries["step"].plain())
                noun = "an integer" if kind == "int" else "a number"
                self.complain(entries["step"], f"{name}.step", f"found {found}, allowed {noun}")
        if len(self._problems) > before:
            return None
        low, high = (bound.value for bound in body.value)
        try:
            return Integer(low, high, **options) if kind == "int" else Float(low, high, **options)
        except ValueError as error:
            self.complain(body, name, str(error))
            return None

    def _choice(
        self, leaf: Leaf, body: Node, options: dict[str, Any], name: str, before: int
    ) -> Distribution | None:
        if isinstance(body.value, dict):
            message = (
                f"found named mappings, allowed a list of values; mappings need a key of their "
                f"own in this section, such as {leaf.path.rpartition('.')[0]}.variant"
            )
            self.complain(body, f"{name}.choice", message)
            return None
        if not isinstance(body.value, list):
            self.complain(body, f"{name}.choice", f"found {show(body.plain())}, allowed a list")
            return None
        for choice in body.value:
            complaint = leaf.complaint(choice.plain())
            if isinstance(choice.value, dict | list):
                complaint = f"found {show(choice.plain())}, allowed {leaf.allowed}"
            if complaint:
                self.complain(choice, f"{name}.choice", complaint)
        if len(self._problems) > before:
            return None
        try:
            return Categorical(tuple(choice.value for choice in body.value), **options)
        except ValueError as error:
            self.complain(body, f"{name}.choice", str(error))
            return None

    def named_choice(self, section: str, path: str, node: Node) -> Parameter | None:
        """Parses a choice of named mappings, merged into ``section``."""
        before = len(self._problems)
        if self._kind(node, path, None) is None:
            return None
        entries: dict[str, Node] = node.value
        merges: dict[str, dict[str, Any]] = {}
        for name, option in entries["choice"].value.items():
            merges[name] = {}
            if option.value:
                self._merge(section, option, merges[name], f"{path}.choice.{name}")
        names = tuple(merges)
        options: dict[str, Any] = {}
        otherwise = MISSING
        if "default" in entries:
            options["default"] = entries["default"].plain()
        if "else" in entries:
            otherwise = entries["else"].plain()
            if otherwise not in names:
                found = show(otherwise)
                self.complain(
                    entries["else"], f"{path}.else", f"found {found}, allowed {', '.join(names)}"
                )
            if "when" not in entries:
                self.complain(entries["else"], f"{path}.else", "found `else` without `when`")
        when = self._when(entries["when"], path) if "when" in entries else {}
        try:
            draw = Categorical(names, **options)
        except ValueError as error:
            self.complain(entries["choice"], f"{path}.choice", str(error))
            return None
        if len(self._problems) > before:
            return None
        return Parameter(path, path, draw, when, otherwise, merges)

    def _merge(self, section: str, node: Node, into: dict[str, Any], place: str) -> None:
        for key, entry in node.value.items():
            path = f"{section}.{key}" if section else key
            inner = f"{place}.{key}"
            if path in sections():
                if isinstance(entry.value, dict):
                    self._merge(path, entry, into, inner)
                else:
                    self.complain(entry, inner, f"found {show(entry.plain())}, allowed a mapping")
                continue
            leaf = leaves().get(path)
            if leaf is None:
                self.complain(entry, inner, f"unknown key{did_you_mean(path)}")
            elif leaf.not_searched is not None:
                self.complain(entry, inner, f"cannot be searched: {leaf.not_searched}")
            elif isinstance(entry.value, dict | list):
                found = show(entry.plain())
                self.complain(
                    entry, inner, f"found {found}, allowed {leaf.allowed} (no distributions here)"
                )
            elif complaint := leaf.complaint(entry.value):
                self.complain(entry, inner, complaint)
            else:
                into[path] = entry.value

    def _when(self, node: Node, name: str) -> dict[str, Condition]:
        place = f"{name}.when"
        if not isinstance(node.value, dict) or not node.value:
            found = show(node.plain()) if node.value != {} else "an empty mapping"
            self.complain(node, place, f"found {found}, allowed {{path: value}}")
            return {}
        found_conditions = {}
        for path, entry in node.value.items():
            condition = self._condition(entry, f"{place}.{path}")
            if condition is not None:
                found_conditions[path] = condition
        return found_conditions

    def _condition(self, node: Node, place: str) -> Condition | None:
        if isinstance(node.value, dict):
            compare = []
            for key, entry in node.value.items():
                if key not in COMPARISONS:
                    hint = nearest(key, COMPARISONS)
                    allowed = ", ".join(COMPARISONS)
                    self.complain(entry, place, f"found {key}, allowed {allowed}{hint}")
                elif not is_number(entry.value):
                    found = show(entry.plain())
                    self.complain(entry, place, f"found {key}: {found}, allowed a number")
                else:
                    compare.append((key, entry.value))
            if not node.value:
                self.complain(node, place, "found an empty mapping, allowed {gt: 0} and the like")
            return Condition(None, tuple(compare)) if compare else None
        items = node.value if isinstance(node.value, list) else [node]
        if not items or any(isinstance(item.value, dict | list) for item in items):
            self.complain(node, place, "found other values, allowed a scalar or a list of scalars")
            return None
        return Condition(tuple(item.value for item in items))
