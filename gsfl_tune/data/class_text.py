"""Reads descriptions of classes in text form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gsfl_tune.data.sources._names import normal, some
from gsfl_tune.data.sources._rows import read_rows
from gsfl_tune.experiment.errors import UserError

_COLUMNS = ("class", "text")


def read_class_texts(file: Path, classes: Sequence[str]) -> list[str]:
    """Reads a description of every class.

    Args:
        file: CSV or TSV with the columns ``class`` and ``text``, or a JSON object of them.
        classes: Names of the classes.

    Returns:
        One text per class, in the order of the classes.

    Raises:
        UserError: If the file cannot be read, or if a class has no text or several. Texts for
            unknown names are an error too, as they are often misspelt.
    """
    pairs = _object(file) if file.suffix.lower() == ".json" else _table(file)
    found: dict[str, str] = {}
    twice: list[str] = []
    for name, text in pairs:
        known = normal(name).strip()
        if found.setdefault(known, text.strip()) != text.strip():
            twice.append(known)
    missing = [name for name in classes if not found.get(name)]
    strangers = sorted(found.keys() - set(classes))
    problems = [
        f"data.class_text: {file}: {what}: {some(names)}"
        for names, what in (
            (missing, f"no text for {len(missing)} of {len(classes)} classes"),
            (strangers, f"found {len(strangers)} not among the {len(classes)} classes of the data"),
            (twice, f"several texts for {len(twice)} of {len(classes)} classes"),
        )
        if names
    ]
    if problems:
        raise UserError("\n".join(problems))
    return [found[name] for name in classes]


def _table(file: Path) -> list[tuple[str, str]]:
    rows = read_rows(file)
    lacking = [name for name in _COLUMNS if name not in rows.columns]
    if lacking:
        raise UserError(
            f"data.class_text: {file}: found the columns {some(rows.columns, 8)}, allowed "
            f"{' and '.join(_COLUMNS)}"
        )
    names, texts = (rows.values[name] for name in _COLUMNS)
    return [(str(n or ""), str(t or "")) for n, t in zip(names, texts, strict=True)]


def _object(file: Path) -> list[tuple[str, str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"data.class_text: {file}:{error.lineno}: cannot be read as JSON: {error.msg}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.class_text: {file} cannot be read: {error}") from error
    if not isinstance(content, dict) or any(not isinstance(text, str) for text in content.values()):
        raise UserError(
            f'data.class_text: {file}: found no object of texts, allowed {{"class": "text"}}'
        )
    return list(content.items())
