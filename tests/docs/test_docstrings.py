"""The first line of a public docstring begins with a verb, so that it reads as a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gsfl_tune"
# Sections of the schema describe a mapping of the file, exceptions and hooks say when.
SECTIONS = re.compile(r"(Config|Section|MetricOfPackage)$")
PASSIVE = ("Raised", "Called")


def _documented(node: ast.AST, public: bool = True) -> Iterator[tuple[str, int, str]]:
    for child in getattr(node, "body", ()):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        own = public and not child.name.startswith("_")
        text = ast.get_docstring(child)
        if own and text:
            yield child.name, child.lineno, text.splitlines()[0]
        if isinstance(child, ast.ClassDef):
            yield from _documented(child, own)


@pytest.mark.parametrize("room", sorted({p.parent for p in PACKAGE.rglob("*.py")}), ids=str)
def test_a_public_docstring_begins_with_a_verb(room: Path):
    others = []
    for file in sorted(room.glob("*.py")):
        for name, line, first in _documented(ast.parse(file.read_text())):
            word = first.split()[0].rstrip(":,.;")
            verb = re.fullmatch(r"[A-Z][a-z-]*[^s]s", word) is not None
            if not verb and word not in PASSIVE and not SECTIONS.search(name):
                others.append(f"{file.name}:{line} {name}: {first}")
    assert others == []
