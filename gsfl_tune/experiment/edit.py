"""Changes to the nodes of an experiment: overrides, constants for distributions, bounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gsfl_tune.experiment.distributions import is_number
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import did_you_mean, leaves, sections
from gsfl_tune.experiment.grammar import is_named_choice
from gsfl_tune.experiment.nodes import Node, read_yaml
from gsfl_tune.hub_names import meant_for_hub

# Leaves that are paths of files.
FILES = (
    "data.path",
    "data.root",
    "data.exclude",
    "data.split.together",
    "data.class_text",
    "data.text_weights",
    "data.augment.restorer",
    "data.unlabelled",
    "data.synthetic",
    "model.weights",
    "model.weights_b",
    "model.groups.taxonomy",
    "training.teacher",
    "search.cost_matrix",
)
WEIGHTS = ("imagenet", "package", "none")
NOT_FILES = {"model.weights": WEIGHTS, "model.weights_b": WEIGHTS}
OVERRIDE = "--set"


def find(root: Node, path: str) -> Node | None:
    """Returns the node at a dotted path."""
    node: Node | None = root
    for key in path.split("."):
        if node is None or not isinstance(node.value, dict):
            return None
        node = node.value.get(key)
    return node


def named_choices(root: Node) -> dict[str, Node]:
    """Returns the choices of named mappings by dotted path."""
    found: dict[str, Node] = {}
    for section in sections():
        node = find(root, section) if section else root
        if node is not None and isinstance(node.value, dict):
            for key, entry in node.value.items():
                path = f"{section}.{key}" if section else key
                if path not in leaves() and path not in sections() and is_named_choice(entry):
                    found[path] = entry
    return found


def put(root: Node, path: str, node: Node | None) -> None:
    """Sets a leaf, or removes it; named mappings then no longer set it.

    A name given for a choice of named mappings keeps only that mapping.
    """
    choices = named_choices(root)
    if node is not None and path in choices and isinstance(node.value, str):
        options = choices[path].value["choice"]
        if node.value in options.value:
            kept = Node({node.value: options.value[node.value]}, options.file, options.line)
            node = Node({"choice": kept}, node.file, node.line)
    parent = root
    *sections_above, key = path.split(".")
    for name in sections_above:
        child = parent.value.get(name)
        if child is None or child.value is None:
            child = parent.value[name] = Node({}, root.file if node is None else node.file, 0)
        if not isinstance(child.value, dict):
            return
        parent = child
    if node is None:
        parent.value.pop(key, None)
    else:
        parent.value[key] = node
    for choice_path, choice in choices.items():
        section = choice_path.rpartition(".")[0]
        if path.startswith(f"{section}." if section else ""):
            inner = path[len(section) + 1 :] if section else path
            for option in choice.value["choice"].value.values():
                _drop(option, inner.split("."))


def _drop(node: Node, keys: list[str]) -> None:
    for key in keys[:-1]:
        if not isinstance(node.value, dict) or key not in node.value:
            return
        node = node.value[key]
    if isinstance(node.value, dict):
        node.value.pop(keys[-1], None)


def override(root: Node, text: str, problems: list[Problem]) -> None:
    """Applies one ``path=value`` of the command line; the value is a piece of YAML."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        problems.append(Problem(OVERRIDE, 0, "", f"found '{text}', allowed path=value"))
        return
    if path in sections():
        keys = ", ".join(f"{path}.{key}" for key in sections()[path].model_fields)
        problems.append(Problem(OVERRIDE, 0, path, f"is a section; set one of its keys: {keys}"))
        return
    found: list[Problem] = []
    node = read_yaml(value, OVERRIDE, found)
    if node is None or found:
        problems.extend(Problem(OVERRIDE, 0, path, problem.message) for problem in found)
        return
    named = named_choices(root)
    section = path.rpartition(".")[0]
    new_choice = section in sections() and is_named_choice(node)
    if path not in leaves() and path not in named and not new_choice:
        hint = did_you_mean(path, named)
        problems.append(Problem(OVERRIDE, 0, path, f"unknown key{hint}"))
        return
    if path in named and not is_named_choice(node):
        names = named[path].value["choice"].value
        if not isinstance(node.value, str) or node.value not in names:
            message = f"found '{value.strip()}', allowed {', '.join(names)}"
            problems.append(Problem(OVERRIDE, 0, path, message))
            return
    _place_everywhere(node)
    put(root, path, node)


def _place_everywhere(node: Node) -> None:
    node.line = 0
    children = node.value.values() if isinstance(node.value, dict) else node.value
    if isinstance(node.value, dict | list):
        for child in children:
            _place_everywhere(child)


def expand_files(root: Node) -> None:
    """Makes file paths absolute, and expands ``~`` and environment variables."""
    conditions = list(_in_conditions(root))
    for path in FILES:
        asked = (scalar for named, scalar in conditions if named == path)
        for scalar in (*_scalars(root, path), *asked):
            if isinstance(scalar.value, str) and not _is_word(path, scalar.value):
                scalar.value = absolute(scalar.value)


def _is_word(path: str, text: str) -> bool:
    # `imagenett` is a misspelt word, not a file: a message should show it as written.
    if path not in NOT_FILES:
        return False
    return meant_for_hub(text) or not any(mark in text for mark in "/\\.~$")


def absolute(text: str) -> str:
    """Expands ``~`` and environment variables and makes a path absolute; keeps URLs."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    return expanded if "://" in expanded or not expanded else os.path.abspath(expanded)


def _scalars(root: Node, path: str) -> Iterator[Node]:
    node = find(root, path)
    if node is not None:
        yield from _inside(node)
    for choice_path, choice in named_choices(root).items():
        section = choice_path.rpartition(".")[0]
        if path.startswith(f"{section}." if section else ""):
            for option in choice.value["choice"].value.values():
                inner = find(option, path[len(section) + 1 :] if section else path)
                if inner is not None:
                    yield from _inside(inner)


def _inside(node: Node) -> Iterator[Node]:
    if isinstance(node.value, dict):
        for key, entry in node.value.items():
            if key in ("choice", "default", "else"):
                yield from _inside(entry)
    elif isinstance(node.value, list):
        for item in node.value:
            yield from _inside(item)
    else:
        yield node


def _in_conditions(node: Node) -> Iterator[tuple[str, Node]]:
    """Yields what conditions ask of paths of files, with the path."""
    if isinstance(node.value, dict):
        for key, entry in node.value.items():
            if key == "when" and isinstance(entry.value, dict):
                for path in entry.value.keys() & FILES:
                    yield from ((path, scalar) for scalar in _inside(entry.value[path]))
            elif isinstance(entry.value, dict | list):
                yield from _in_conditions(entry)
    elif isinstance(node.value, list):
        for item in node.value:
            yield from _in_conditions(item)


def replace_texts(root: Node, texts: Mapping[str, str]) -> None:
    """Replaces texts by others, wherever they are values: of leaves, in choices and conditions."""
    if isinstance(root.value, dict | list):
        children = root.value.values() if isinstance(root.value, dict) else root.value
        for child in children:
            replace_texts(child, texts)
    elif isinstance(root.value, str):
        root.value = texts.get(root.value, root.value)


def clamp(root: Node, path: str, high: float) -> None:
    """Limits the possible values of a leaf to ``high``; a constant in the file is kept."""
    default_too_large = leaves()[path].default > high
    node = find(root, path)
    if node is not None and isinstance(node.value, dict | list):
        items = [node] if isinstance(node.value, dict) else node.value
        for item in items:
            _clamp(item.value, high)
        conditional = all("when" in item.value for item in items)
        if conditional and default_too_large and not any("else" in item.value for item in items):
            items[0].value["else"] = Node(high, items[0].file, items[0].line)
    merged = False
    for choice_path, choice in named_choices(root).items():
        section = choice_path.rpartition(".")[0]
        if path.startswith(f"{section}." if section else ""):
            inner = path[len(section) + 1 :] if section else path
            for option in choice.value["choice"].value.values():
                leaf = find(option, inner)
                if leaf is not None and is_number(leaf.value):
                    merged = True
                    leaf.value = min(leaf.value, high)
    if node is None and not merged and default_too_large:
        put(root, path, Node(high, root.file, root.line))


def _clamp(entries: dict[str, Node], high: float) -> None:
    lower: Callable[[Any], Any] = lambda value: min(value, high) if is_number(value) else value  # noqa: E731
    for kind in ("int", "float"):
        if kind in entries:
            for bound in entries[kind].value:
                bound.value = lower(bound.value)
    if "choice" in entries:
        choices = entries["choice"].value
        kept = [item for item in choices if not is_number(item.value) or item.value <= high]
        entries["choice"].value = kept or [Node(high, choices[0].file, choices[0].line)]
    for key in ("default", "else"):
        if key in entries:
            entries[key].value = lower(entries[key].value)
    if "default" in entries and "choice" in entries:
        values = [item.value for item in entries["choice"].value]
        if entries["default"].value not in values:
            del entries["default"]
    elif "default" in entries and "step" in entries:
        low, top = (bound.value for bound in entries["int" if "int" in entries else "float"].value)
        step = entries["step"].value
        if (entries["default"].value - low) % step or entries["default"].value > top:
            del entries["default"]
