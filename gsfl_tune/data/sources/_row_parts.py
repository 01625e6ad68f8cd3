"""Parts that the rows of a table tell: by words in a column, or by folders in their paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from gsfl_tune.data.sources._names import AmbiguousName, Part, part_of_name

# Columns with these names are meant for parts, whatever they hold.
SPLIT = ("split", "subset", "partition", "data_split", "set")
# Columns with these names may hold parts, or anything else.
SPLIT_TOO = (
    "dataset", "data_set", "usage", "phase", "stage", "part", "mode", "train_test",
    "train_val_test", "train_test_split",
)  # fmt: skip
ALLOWED = "train, validation, test, or nothing"
# Words that are looked at before all of them are.
_FIRST = 100


def is_part(word: str) -> bool:
    """Returns whether a word names a part."""
    return told_part(word) is not None


def told_part(word: str) -> Part | None:
    """Returns the part that a word names; None for no part or an ambiguous word."""
    try:
        return part_of_name(word)
    except AmbiguousName:
        return None


def plain(name: str) -> str:
    """Returns a column's name in lower case, with one underscore for all other characters."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def words_and_others(values: Iterable[Any]) -> tuple[set[Part], list[str]]:
    """Returns the parts that the cells of a column name, and all other words in it."""
    words = {str(value).strip() for value in values if value is not None} - {""}
    told = {word: told_part(word) for word in words}
    parts = {part for part in told.values() if part is not None}
    return parts, sorted(word for word in words if told[word] is None)


def tell_parts(values: Sequence[Any]) -> bool:
    """Returns whether the cells of a column name several parts, and nothing else."""
    if words_and_others(values[:_FIRST])[1]:
        return False
    parts, others = words_and_others(values)
    return len(parts) > 1 and not others


def may_tell_parts(column: str, values: Sequence[Any]) -> bool:
    """Returns whether a column such as ``is_train`` holds 0 and 1, or false and true."""
    if told_part(plain(column).removeprefix("is_")) is None:
        return False
    words = {str(value).strip().lower().removesuffix(".0") for value in values[:_FIRST]}
    return bool(words) and words <= {"0", "1", "false", "true", "yes", "no"}


def not_used(name: str, column: str, others: Sequence[str]) -> str:
    """Returns a notice of a column that is called as if it told parts, and does not."""
    return (
        f"{name}: column {column} holds other words than those for parts ({', '.join(others[:3])}"
        f"{'' if len(others) <= 3 else f' and {len(others) - 3} more'}): not used as such; "
        "data.split_column would refuse it"
    )


def unclear(name: str, column: str) -> str:
    """Returns a notice of a column that `may_tell_parts`."""
    return (
        f"{name}: column {column} may tell the parts, and is not used as such: it holds 0 and 1, "
        "and not words (train, validation, test)"
    )


def counts_of(parts: Iterable[Part | None]) -> str:
    """Returns the number of rows of each part, such as ``test 8, train 16``."""
    counts = Counter(parts)
    return ", ".join(f"{part or 'none'} {counts[part]:,}" for part in sorted(counts, key=str))


def part_of_folders(name: str) -> Part | None:
    """Returns the part in the folder names of a path, the nearest first."""
    folders = reversed(PurePosixPath(name.replace("\\", "/")).parts[:-1])
    return next((part for part in map(told_part, folders) if part is not None), None)


def parts_of_folders(names: Sequence[str | None]) -> list[Part | None] | None:
    """Returns the parts that folders in paths tell; None unless all do, and one is for training."""
    parts = [None if name is None else part_of_folders(name) for name in names]
    told = set(parts)
    return parts if len(told) > 1 and None not in told and "train" in told else None
