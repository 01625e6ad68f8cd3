"""YAML nodes: plain values with their line, read from and written to files.

Nothing is constructed from a tag: PyYAML only composes the node graph, and the values are built
here. Scalars follow YAML 1.2, so ``1e-3`` is a number and ``no`` is a word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from gsfl_tune.experiment.errors import ExperimentError, Problem

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 40

_PREFIX = "tag:yaml.org,2002:"
_CORE = {f"{_PREFIX}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_RESOLVERS = [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
]


UNREADABLE = object()
"""Replaces a value that already caused a complaint."""


@dataclass
class Node:
    """Holds a value of the file and its place.

    Attributes:
        value: A scalar, a list of nodes, or a dictionary of nodes.
        file: File name, or ``--set``.
        line: Line of its key (or of the value itself in a list), counted from 1.
    """

    value: Any
    file: str
    line: int

    def plain(self) -> Any:
        """Returns the value without its places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    @property
    def readable(self) -> bool:
        """Returns whether everything in it was read without a complaint."""
        if isinstance(self.value, dict):
            return all(node.readable for node in self.value.values())
        if isinstance(self.value, list):
            return all(node.readable for node in self.value)
        return self.value is not UNREADABLE

    def copy(self) -> Node:
        """Makes a deep copy."""
        value = self.value
        if isinstance(value, dict):
            value = {key: node.copy() for key, node in value.items()}
        elif isinstance(value, list):
            value = [node.copy() for node in value]
        return Node(value, self.file, self.line)


def as_node(value: Any, file: str, line: int) -> Node:
    """Wraps plain values, all with the same place."""
    if isinstance(value, dict):
        value = {key: as_node(item, file, line) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        value = [as_node(item, file, line) for item in value]
    return Node(value, file, line)


class _TooMuch(yaml.MarkedYAMLError):
    """Raised for a file that nests too deeply or holds too many values."""


def _add_resolvers(target: Any) -> None:
    target.yaml_implicit_resolvers = {}
    for kind, pattern, first in _RESOLVERS:
        # \Z, as `$` would accept a trailing newline.
        regexp = re.compile(rf"(?:{pattern})\Z")
        for character in first:
            key = "" if character == "\0" else character
            target.yaml_implicit_resolvers.setdefault(key, []).append((_PREFIX + kind, regexp))


class _Loader(yaml.SafeLoader):
    """Composes nodes only, with limits on depth and size."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._count += 1
        mark = self.peek_event().start_mark
        if self._depth > MAX_DEPTH:
            raise _TooMuch(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        if self._count > MAX_NODES:
            raise _TooMuch(problem=f"more than {MAX_NODES} values", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes every string that `_Loader` would otherwise read back differently."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Other scalar styles write these line breaks as they are and read them back as spaces.
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{_PREFIX}str", text, style=style)


_Dumper.add_representer(str, _write_text)
_add_resolvers(_Loader)
_add_resolvers(_Dumper)


def write_yaml(value: Any) -> str:
    """Writes plain values as YAML that `read_yaml` reads back unchanged."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )


def decode(data: bytes, file: str) -> str:
    """Decodes the bytes of a file.

    Raises:
        ExperimentError: The file is too large or not UTF-8.
    """
    if len(data) > MAX_BYTES:
        raise ExperimentError(
            [Problem(file, 0, "", f"found {len(data):,} bytes, allowed at most {MAX_BYTES:,}")]
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = data[error.start]
        raise ExperimentError(
            [Problem(file, line, "", f"found the byte 0x{found:02x}, allowed is UTF-8 text")]
        ) from None


def read_yaml(text: str, file: str, problems: list[Problem]) -> Node | None:
    """Reads one YAML document.

    Args:
        text: The document.
        file: Name for problems.
        problems: Complaints are appended here; reading continues where possible.

    Returns:
        The root, or None if nothing could be read (an empty document is a null node).
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"found the character U+{int(error.character):04X}, which YAML does not allow"
        problems.append(Problem(file, line, "", found))
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(Problem(file, mark.line + 1 if mark else 0, "", _syntax(error)))
        return None
    if root is None:
        return Node(None, file, 1)
    return _Builder(file, problems).build(root, root.start_mark.line + 1, "")


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        return "found a tab, allowed are spaces"
    if "but found another document" in problem:
        return "found a second document (---), allowed is one"
    if isinstance(error, _TooMuch):
        return f"found {problem}"
    if "found undefined alias" in problem:
        return problem
    context = f" ({error.context})" if error.context else ""
    return f"not YAML: {problem}{context}"


class _Stop(Exception):
    """Raised to end the reading of a YAML bomb."""


class _Builder:
    """Turns composed nodes into values, and counts what aliases expand to."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.count = 0
        self.open: set[int] = set()

    def complain(self, line: int, path: str, message: str) -> None:
        self.problems.append(Problem(self.file, line, path, message))

    def build(self, node: yaml.Node, line: int, path: str) -> Node | None:
        try:
            return self._build(node, line, path)
        except _Stop:
            return None

    def _build(self, node: yaml.Node, line: int, path: str) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            self.complain(line, path, f"aliases expand to more than {MAX_NODES} values")
            raise _Stop
        if id(node) in self.open:
            self.complain(line, path, "an alias contains itself")
            raise _Stop
        if node.tag not in _CORE:
            tag = node.tag.replace(_PREFIX, "!!")
            self.complain(line, path, f"found the tag {tag}, allowed are plain values only")
            return Node(UNREADABLE, self.file, line)
        self.open.add(id(node))
        try:
            value: Any
            if isinstance(node, yaml.MappingNode):
                value = self._mapping(node, line, path)
            elif isinstance(node, yaml.SequenceNode):
                value = [
                    self._build(item, max(line, item.start_mark.line + 1), f"{path}[{index}]")
                    for index, item in enumerate(node.value)
                ]
            else:
                value = self._scalar(str(node.tag), str(node.value), line, path)
        finally:
            self.open.discard(id(node))
        return Node(value, self.file, line)

    def _mapping(self, node: yaml.MappingNode, outer: int, path: str) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            # Content that an alias repeats gets the line of the alias.
            line = max(outer, key_node.start_mark.line + 1)
            if key_node.tag != f"{_PREFIX}str" or not isinstance(key_node, yaml.ScalarNode):
                found = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a collection"
                self.complain(line, path, f"found the key {found or 'null'}, allowed are words")
                continue
            key = key_node.value
            inner = f"{path}.{key}" if path else key
            if key == "<<":
                self.complain(line, path, "merge keys (<<) are not supported; write the keys out")
                continue
            if key in entries:
                self.complain(line, inner, f"this key is given twice, first on line {lines[key]}")
                continue
            lines[key] = line
            entries[key] = self._build(value_node, line, inner)
        return entries

    def _scalar(self, tag: str, text: str, line: int, path: str) -> Any:
        kind = tag.removeprefix(_PREFIX)
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if kind == "int":
                return int(text, 0 if text[:2] in ("0o", "0x") else 10)
            if kind == "float":
                number = float(re.sub(r"\.(?=[a-zA-Z])", "", text))
                if math.isfinite(number):
                    return number
                self.complain(line, path, f"found {text}, allowed are finite numbers")
                return UNREADABLE
        except ValueError:
            pass
        self.complain(line, path, f"found {text!r}, allowed is what the tag !!{kind} says")
        return UNREADABLE
