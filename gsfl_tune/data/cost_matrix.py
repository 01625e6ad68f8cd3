"""What an answer costs, from a table of the user: ``search.cost_matrix``.

Source: Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001 (the cost of an answer is a
function of the true class and the class that is answered).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data.sources._names import spelt
from gsfl_tune.experiment.errors import UserError

_SHOWN = 10


def load_cost_matrix(path: str | Path, classes: Sequence[str]) -> NDArray[np.float64]:
    """Reads a matrix of costs from a CSV file.

    The first line names the classes that are answered; the first cell of every other line names the
    true class. Both may be in any order, composed or decomposed.

    Args:
        path: The file, UTF-8.
        classes: C class names, in the order of the labels.

    Returns:
        (C, C) costs; row: the true class, column: the answer.

    Raises:
        UserError: If the file cannot be read, a class is missing, unknown or repeated, or a cost is
            not a finite number. One line per problem, with file, line and class.
    """
    rows = _rows(Path(path))
    problems: list[str] = []
    first, header = rows[0] if rows else (1, [])
    answered = spelt([cell.strip() for cell in header[1:]], classes)
    true = spelt([cells[0].strip() for _, cells in rows[1:]], classes)
    lines = [line for line, _ in rows[1:]]
    problems += _names(f"{path}:{first}", "column", answered, classes)
    known = set(classes)
    for place, (line, name) in enumerate(zip(lines, true, strict=True)):
        if name not in known:
            problems.append(f"{path}:{line}: the class {name!r} is unknown")
        elif name in true[:place]:
            problems.append(f"{path}:{line}: the class {name!r} has a line already")
    lacking = [name for name in classes if name not in true]
    if lacking:
        problems.append(f"{path}: no line for {_some(lacking)}")
    position = {name: place for place, name in enumerate(classes)}
    costs = np.zeros((len(classes), len(classes)))
    for name, (line, cells) in zip(true, rows[1:], strict=True):
        values = cells[1:]
        if len(values) != len(answered):
            problems.append(
                f"{path}:{line}: class {name!r}: found {len(values)} costs, allowed "
                f"{len(answered)}, one for each column of the first line"
            )
            continue
        for answer, text in zip(answered, values, strict=True):
            cost = _number(text)
            if cost is None:
                problems.append(
                    f"{path}:{line}: class {name!r} answered as {answer!r}: found "
                    f"{text.strip()!r}, allowed a number"
                )
            elif name in position and answer in position:
                costs[position[name], position[answer]] = cost
    if problems:
        more = len(problems) - _SHOWN
        shown = problems[:_SHOWN] + ([f"{path}: and {more} more problems"] if more > 0 else [])
        raise UserError("\n".join(f"search.cost_matrix: {each}" for each in shown))
    return costs


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Returns the lines that are not empty, with their numbers in the file."""
    try:
        with path.expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"search.cost_matrix: {path} cannot be read ({error})") from error


def _names(where: str, what: str, found: Sequence[str], classes: Sequence[str]) -> list[str]:
    known = set(classes)
    lists = (
        (f"no {what} for", [name for name in classes if name not in found]),
        (f"unknown classes in the {what}s:", sorted(set(found) - known)),
        (f"more than one {what} for", sorted({n for n in found if found.count(n) > 1})),
    )
    return [f"{where}: {text} {_some(names)}" for text, names in lists if names]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
