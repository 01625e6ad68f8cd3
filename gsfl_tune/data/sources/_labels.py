"""Reads labels, one-hot rows and boxes from the cells of a table."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._columns import Roles
from gsfl_tune.data.sources._names import normal
from gsfl_tune.data.sources._rows import Rows
from gsfl_tune.data.sources._tables import NO_LABELS

# pandas writes integers as 1.0 if one is missing, which is still a number; 007 is a name.
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0)?")
Label = int | str


class Several(ValueError):
    """Raised for a row with more than one class."""


class Odd(ValueError):
    """Raised for a cell that cannot be read; the text says what was found and what is allowed."""


def label_of(rows: Rows, roles: Roles, row: int) -> Label | None:
    """Returns the label of a row; None if it has none.

    Raises:
        Several: If it has more than one.
        Odd: If the cell cannot be read.
    """
    if roles.label is None:
        chosen = [c for c in roles.one_hot if _bit(rows.values[c][row], c)]
        if len(chosen) > 1:
            raise Several
        return normal(chosen[0]) if chosen else None
    return _label(rows.values[roles.label][row])


def whole_numbers(labels: list[Label | None]) -> list[Label | None]:
    """Converts labels to integers if all are such, and -1 to None, also among names."""
    labels = [None if str(label) in NO_LABELS else label for label in labels]
    found: list[Label | None] = []
    for label in labels:
        match = _WHOLE.fullmatch(label) if isinstance(label, str) else None
        if isinstance(label, str) and match is None:
            return [str(each) if isinstance(each, int) else each for each in labels]
        found.append(int(match[1]) if match else label)
    return found


def _label(value: Any) -> Label | None:
    """Returns the label in a cell: text, a number, or choices of Label Studio."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("{", "["):
            try:
                return _label(json.loads(text))
            except (json.JSONDecodeError, RecursionError):
                pass
        return normal(text) or None
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, int | float):
        if isinstance(value, int) or value.is_integer():
            return int(value)
        if math.isnan(value):
            return None
        raise Odd(f"found the label {value}, allowed whole numbers or text")
    if isinstance(value, dict):
        if not isinstance(value.get("choices"), list):
            raise Odd(
                f"found {json.dumps(value)[:60]}, allowed a label or choices "
                "(boxes of Label Studio: export as COCO, data.source: coco)"
            )
        value = value["choices"]
    labels = {found for each in value if (found := _label(each)) is not None}
    if len(labels) > 1:
        raise Several
    return next(iter(labels), None)


def _bit(value: Any, column: str) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number not in (0.0, 1.0):
        raise Odd(f"found {value!r} in column {column}, allowed 0 or 1")
    return number == 1.0


def box_of(rows: Rows, roles: Roles, row: int) -> Box | None:
    """Returns the box of a row, (x0, y0, x1, y1); None if its cells are empty.

    Raises:
        Odd: If they are not four numbers.
    """
    cells = [rows.values[column][row] for column in roles.boxes]
    if all(cell is None or cell == "" for cell in cells):
        return None
    found: Any = cells
    if len(cells) == 1:
        try:
            found = json.loads(cells[0]) if isinstance(cells[0], str) else cells[0]
        except json.JSONDecodeError:
            found = None
    try:
        x, y, right, bottom = (float(value) for value in found)
        if not all(map(math.isfinite, (x, y, right, bottom))):
            raise ValueError
    except (TypeError, ValueError):
        shown = ", ".join(str(cell) for cell in cells)
        raise Odd(f"found the box {shown or None}, allowed four numbers") from None
    return (x, y, right, bottom) if roles.corners else (x, y, x + right, y + bottom)


def point_of(rows: Rows, columns: tuple[str, str], row: int) -> tuple[float, float] | None:
    """Returns the point of a part, (x, y); None if its cells are empty.

    Raises:
        Odd: If they are not two numbers.
    """
    cells = [rows.values[column][row] for column in columns]
    if all(_empty(cell) for cell in cells):
        return None
    try:
        x, y = (float(cell) for cell in cells)
        if not math.isfinite(x) or not math.isfinite(y):
            raise ValueError
    except (TypeError, ValueError):
        shown = ", ".join(f"{name} {cell!r}" for name, cell in zip(columns, cells, strict=True))
        raise Odd(f"found {shown}, allowed two numbers or two empty cells") from None
    return x, y


def attribute_of(rows: Rows, column: str, row: int) -> float:
    """Returns the value of an attribute; NaN if its cell is empty.

    Raises:
        Odd: If it is neither a number nor true or false.
    """
    cell = rows.values[column][row]
    if _empty(cell):
        return math.nan
    words = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
    try:
        number = words.get(str(cell).strip().lower())
        number = float(cell) if number is None else number
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise Odd(
            f"found {cell!r} in column {column}, allowed a number, true, false or nothing"
        ) from None
    return number


def _empty(cell: Any) -> bool:
    return cell is None or str(cell).strip() == "" or (isinstance(cell, float) and cell != cell)


def degenerate(box: Box) -> bool:
    """Returns whether a box is less than a pixel wide or high."""
    return box[2] - box[0] < 1 or box[3] - box[1] < 1
