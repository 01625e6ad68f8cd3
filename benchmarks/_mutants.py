"""Small faults in the code: those of cosmic-ray, and two kinds that it lacks."""

from __future__ import annotations

import ast
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Makes the source of a mutant.
Fault = Callable[[], str]


@dataclass(frozen=True)
class Mutant:
    """Whole lines of a module, and what they become.

    Attributes:
        module: Path below the package.
        line: First of the lines, counted from 1.
        kind: Name of the operator.
        old: The lines as they are.
        new: The lines with the fault.
    """

    module: str
    line: int
    kind: str
    old: str
    new: str

    def of(self, source: str) -> str | None:
        """Returns the module with the fault; None where these lines are there no more."""
        lines, old = source.split("\n"), self.old.split("\n")
        starts = [i for i in range(len(lines)) if lines[i : i + len(old)] == old]
        if not starts:
            return None
        start = min(starts, key=lambda i: abs(i + 1 - self.line))
        return "\n".join([*lines[:start], *self.new.split("\n"), *lines[start + len(old) :]])


def sample(patterns: Sequence[str], size: int, seed: int) -> tuple[list[Mutant], int]:
    """Draws mutants of different places, and counts the places.

    Args:
        patterns: Modules, below the package.
        size: Most mutants.
        seed: Of the draw.
    """
    places: dict[tuple[str, object], list[tuple[str, Fault]]] = defaultdict(list)
    package = ROOT / "gsfl_tune"
    for pattern in patterns:
        for path in sorted(package.glob(pattern)):
            for place, kind, fault in all_faults(path.read_text()):
                places[str(path.relative_to(package)), place].append((kind, fault))
    draw = random.Random(seed)
    chosen: list[Mutant] = []
    for module, place in draw.sample(sorted(places, key=str), len(places)):
        kind, fault = draw.choice(places[module, place])
        source = (package / module).read_text()
        # cosmic-ray cannot replace an exception with a dotted name.
        with suppress(AttributeError):
            chosen.append(as_mutant(module, kind, source, fault()))
        if len(chosen) == size:
            break
    return chosen, len(places)


def all_faults(source: str) -> Iterator[tuple[object, str, Fault]]:
    """Yields place, kind, and a function that makes the source of every mutant."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes, outside = list(ast_nodes(get_ast(source))), list(annotations(source))
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        positions = [position for node in nodes for position in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if not any(first <= start < last for first, last in outside):
                fault = functools.partial(mutate_code, source, operator, occurrence)
                yield (start, end), name.split("/")[1].split("_")[0], fault
    yield from without_statements(source)


def as_mutant(module: str, kind: str, source: str, code: str) -> Mutant:
    """Finds the lines that differ."""
    old, new = source.split("\n"), code.split("\n")
    first = 0
    while old[first] == new[first]:
        first += 1
    last = 1
    while old[-last] == new[-last] and min(len(old), len(new)) - last > first:
        last += 1
    old, new = old[first : len(old) - last + 1], new[first : len(new) - last + 1]
    return Mutant(module, first + 1, kind, "\n".join(old), "\n".join(new))


def annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields where types are written: a fault in them is mypy's."""
    for node in ast.walk(ast.parse(source)):
        types = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            types.append(node)
        for each in types:
            if each is not None:
                yield (each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)


def without_statements(source: str) -> Iterator[tuple[object, str, Fault]]:
    """Yields what leaves out one statement, and what makes a function do nothing."""
    lines = source.split("\n")

    def replaced(first: ast.stmt, last: ast.stmt, text: str) -> str:
        # Statements of this package stand on lines of their own.
        indent = lines[first.lineno - 1][: first.col_offset]
        return "\n".join([*lines[: first.lineno - 1], indent + text, *lines[last.end_lineno :]])

    for node in ast.walk(ast.parse(source)):
        place = (getattr(node, "lineno", 0), type(node).__name__)
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            inside = [n for statement in body for n in ast.walk(statement)]
            if body and not isinstance(body[0], ast.Raise):
                generator = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside)
                text = "yield from ()" if generator else "return None"
                fault = functools.partial(replaced, body[0], body[-1], text)
                yield place, "EmptyFunction", fault
        elif (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)) or (
            isinstance(node, ast.AugAssign | ast.Raise | ast.Delete)
            or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name))
        ):
            yield place, "RemoveStatement", functools.partial(replaced, node, node, "pass")
