"""Groups from a given taxonomy."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups


class TaxonomyGrouping(Grouping):
    """Groups the classes of one taxon; the taxonomy decides the number of groups."""

    name = "taxonomy"

    def assign(self, given: GroupingInput) -> Groups:
        """Reads the groups from the taxonomy."""
        if given.taxonomy is None:
            raise ValueError("grouping by taxonomy needs a file: set model.groups.taxonomy")
        if len(given.taxonomy) != given.class_count:
            raise ValueError(
                f"the taxonomy names {len(given.taxonomy)} classes, there are {given.class_count}"
            )
        return np.unique(list(given.taxonomy), return_inverse=True)[1].astype(np.int64)


def load_taxonomy(path: str | Path, classes: Sequence[str]) -> list[str]:
    """Reads the group of every class from a CSV file with the columns ``class`` and ``group``.

    Names that differ only in composed and decomposed form are the same.

    Args:
        path: The file, UTF-8.
        classes: Class names, in their order.

    Returns:
        The group name of every class, in the same order.

    Raises:
        ValueError: If the file cannot be read, or classes are missing, unknown, repeated or empty.
    """
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"class", "group"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path}: the first line must name the columns class and group")
            rows = [(_normal(r["class"]), (r["group"] or "").strip()) for r in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the taxonomy {path} cannot be read: {error}") from error
    groups = dict(rows)
    spelt = {c: _normal(c) for c in classes}
    names = [name for name, _ in rows]
    problems = [
        f"{what}: {_some(found)}"
        for what, found in (
            ("classes without a line", [c for c in classes if spelt[c] not in groups]),
            ("unknown classes", sorted(set(groups) - set(spelt.values()))),
            ("classes with several lines", sorted({n for n in names if names.count(n) > 1})),
            ("classes without a group", sorted(n for n, g in rows if not g)),
        )
        if found
    ]
    if problems:
        raise ValueError(f"the taxonomy {path} does not fit the data; {'; '.join(problems)}")
    first: dict[str, str] = {}
    # A group keeps the spelling of its first line: groups are numbered in the order of their names.
    for _, group in rows:
        first.setdefault(_normal(group), group)
    return [first[_normal(groups[spelt[c]])] for c in classes]


def _normal(cell: str | None) -> str:
    """Returns the composed form of a name: files from macOS may have decomposed ones."""
    return unicodedata.normalize("NFC", cell or "").strip()


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
