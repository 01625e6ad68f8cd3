"""Parts and attributes of numbered images, in the lists of CUB-200-2011 and NABirds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gsfl_tune.data.disk_errors import not_utf8, unreadable
from gsfl_tune.data.sources._names import normal
from gsfl_tune.experiment.errors import UserError

# The one of the four certainties of CUB's annotators for "not visible".
_NOT_VISIBLE = "1"


def read_parts(root: Path, row: Mapping[str, int]) -> tuple[list[str], np.ndarray | None]:
    """Reads ``parts/parts.txt`` and ``parts/part_locs.txt``.

    Args:
        root: Folder of the lists.
        row: Row of each image, by its number; other images are left out.

    Returns:
        Names of the parts, and (N, P, 2) float32 pixels, NaN if a part is not visible; empty if
        there are no such files.

    Raises:
        UserError: If a line cannot be read.
    """
    names, places = root / "parts" / "parts.txt", root / "parts" / "part_locs.txt"
    if not names.is_file() or not places.is_file():
        return [], None
    parts = numbered_lines(names)
    column = {number: place for place, number in enumerate(parts)}
    points = np.full((len(row), len(parts), 2), np.nan, dtype=np.float32)
    for number, words in _lines(places, 5, "an image, a part, x, y and whether it is visible"):
        image, part, x, y, visible = words
        if part not in column:
            raise UserError(f"{places}:{number}: found part {part}, allowed those of {names}")
        if image in row and visible != "0":
            points[row[image], column[part]] = _numbers(places, number, x, y)
    return list(parts.values()), points


def read_attributes(root: Path, row: Mapping[str, int]) -> tuple[list[str], np.ndarray | None]:
    """Reads ``attributes.txt`` and ``attributes/image_attribute_labels.txt``.

    ``attributes.txt`` is beside the folder in CUB's archive.

    Args:
        root: Folder of the lists.
        row: Row of each image, by its number; other images are left out.

    Returns:
        Names of the attributes, and (N, A) float32, 1 or 0, NaN if it was not visible; empty if
        there are no such files.

    Raises:
        UserError: If a line cannot be read.
    """
    labels = root / "attributes" / "image_attribute_labels.txt"
    folders = (root / "attributes", root, root.parent)
    names = next((f for f in (each / "attributes.txt" for each in folders) if f.is_file()), None)
    if names is None or not labels.is_file():
        return [], None
    attributes = numbered_lines(names)
    column = {number: place for place, number in enumerate(attributes)}
    values = np.full((len(row), len(attributes)), np.nan, dtype=np.float32)
    # Some lines of the official file have more than five words: a time of two words, and zeros.
    for number, words in _lines(labels, 4, "an image, an attribute, 0 or 1, and a certainty"):
        image, attribute, present, certainty = words
        if attribute not in column or present not in ("0", "1"):
            what = f"attribute {attribute}, {present}"
            raise UserError(f"{labels}:{number}: found {what}, allowed those of {names}, 0 or 1")
        if image in row and certainty != _NOT_VISIBLE:
            values[row[image], column[attribute]] = float(present)
    return list(attributes.values()), values


def _lines(file: Path, count: int, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the first words of each line, with the line's number."""
    try:
        # CUB's attributes are millions of lines: they are not held at a time.
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                words = line.split()
                if words and len(words) < count:
                    raise UserError(f"{file}:{number}: found {line.strip()!r}, allowed {what}")
                if words:
                    yield number, words[:count]
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except OSError as error:
        raise unreadable(error) from error


def _numbers(file: Path, line: int, *words: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise UserError(f"{file}:{line}: found {' '.join(words)!r}, allowed numbers") from None


def numbered_lines(file: Path) -> dict[str, str]:
    """Reads lines of ``number text``, in the composed form (NFC).

    Returns:
        The text by number, in the order of the file.

    Raises:
        UserError: If a line has no text, a number appears twice, or the file cannot be read.
    """
    rows: dict[str, str] = {}
    for number, line in enumerate(normal(text_of(file)).splitlines(), start=1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not value or key in rows:
            reason = "appears twice" if key in rows else "expected a number and a value"
            raise UserError(f"{file}:{number}: {line.strip()!r}: {reason}")
        rows[key] = value.strip()
    return rows


def text_of(file: Path) -> str:
    """Reads a list.

    Raises:
        UserError: If it is not UTF-8, or cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except OSError as error:
        raise unreadable(error) from error
