"""Reads text tables: CSV with any delimiter, JSON lines, a JSON list of objects."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.data.formats import IMAGE_SUFFIXES, why_no_image
from gsfl_tune.data.sources._names import some
from gsfl_tune.experiment.errors import UserError

_DELIMITERS = ",;\t"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Rows:
    """Holds the content of a table.

    Attributes:
        name: Path of the file.
        columns: Names of the columns, in order.
        values: Values of each column, one per row; None if a row has none.
        lines: Line of each row in the file, or number of its entry from 1.
        by_line: Whether `lines` are lines.
        problems: Messages on rows that cannot be read, which are not in `values`.
    """

    name: str
    columns: list[str]
    values: dict[str, list[Any]]
    lines: list[int]
    by_line: bool
    problems: list[str]

    def where(self, row: int) -> str:
        """Returns the name of a row for messages."""
        return f"{self.name}:{self.lines[row]}" if self.by_line else self._entry(self.lines[row])

    def _entry(self, number: int) -> str:
        return f"{self.name}: entry {number}"

    def __len__(self) -> int:
        return len(self.lines)


def read_rows(file: Path) -> Rows:
    """Reads a whole table.

    Args:
        file: CSV (with comma, semicolon or tab), or JSON lines or JSON by its suffix.

    Raises:
        UserError: If it is not a table, or its first line is not a header.
    """
    text = _text(file)
    if file.suffix.lower() not in _JSON_SUFFIXES:
        return _read_csv(str(file), text)
    if text.lstrip().startswith("["):
        return _read_list(str(file), text)
    return _read_lines(str(file), text)


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}:{line}: found bytes that are not UTF-8, allowed text in UTF-8 or UTF-16"
        ) from error


def _read_csv(name: str, text: str) -> Rows:
    known = why_no_image(text[:256].encode())
    if known is not None:
        raise UserError(f"{name}: {known.replace('the image itself', 'the file itself')}")
    lines = _split(name, text)
    start, header = next(lines, (1, []))
    columns = [column.strip() for column in header]
    if not any(columns):
        raise UserError(f"{name}: found no header, allowed names of columns in the first line")
    if any(Path(column).suffix.lower() in IMAGE_SUFFIXES for column in columns):
        raise UserError(
            f"{name}:{start}: found {some(columns, 5)} where names of columns are expected: the "
            "first line must be a header"
        )
    _refuse_twice(f"{name}:{start}", columns)
    rows: list[list[str]] = []
    places: list[int] = []
    odd: list[str] = []
    for line, row in lines:
        if len(row) == len(columns):
            rows.append(row)
            places.append(line)
        else:
            odd.append(f"{line} ({len(row)})")
    problems = []
    if odd:
        problems.append(
            f"{name}: found another number of fields than the {len(columns)} of the header in "
            f"lines {some(odd)}"
        )
    turned = list(zip(*rows, strict=True)) or [()] * len(columns)
    values = {column: list(turned[place]) for place, column in enumerate(columns)}
    return Rows(name, columns, values, places, True, problems)


def _split(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the first line number of each row and its fields; empty lines are skipped."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(
        _DELIMITERS,
        key=lambda each: len(next(csv.reader([first], delimiter=each, skipinitialspace=True))),
    )
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    before = 0
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield before + 1, row
            before = reader.line_num
    except csv.Error as error:
        raise UserError(f"{name}:{before + 1}: cannot be read as CSV: {error}") from error


def _refuse_twice(place: str, columns: list[str]) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UserError(f"{place}: columns that appear more than once: {some(twice)}")


def _read_lines(name: str, text: str) -> Rows:
    entries: list[dict[str, Any]] = []
    places: list[int] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}:{number}: cannot be read as JSON: {error}")
            continue
        if isinstance(entry, dict):
            entries.append(entry)
            places.append(number)
        else:
            problems.append(f"{name}:{number}: found {_kind(entry)}, allowed an object {{...}}")
    if problems and not entries:
        raise UserError(problems[0])
    return _table(name, entries, places, True, problems)


def _read_list(name: str, text: str) -> Rows:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: cannot be read as JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: cannot be read as JSON: {error}") from error
    odd = [f"{place} ({_kind(e)})" for place, e in enumerate(entries, 1) if not isinstance(e, dict)]
    problems = [f"{name}: found other entries than objects {{...}}: {some(odd)}"] if odd else []
    numbered = [(place, entry) for place, entry in enumerate(entries, 1) if isinstance(entry, dict)]
    return _table(
        name, [entry for _, entry in numbered], [place for place, _ in numbered], False, problems
    )


def _table(
    name: str, entries: list[dict[str, Any]], places: list[int], by_line: bool, problems: list[str]
) -> Rows:
    columns = list(dict.fromkeys(column for entry in entries for column in entry))
    values = {column: [entry.get(column) for entry in entries] for column in columns}
    return Rows(name, columns, values, places, by_line, problems)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else json.dumps(value)[:40]
