"""Finds names in which a word for a part is joined to other letters: birdstrain, testfull."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from gsfl_tune.data.sources._names import (
    HELD,
    PART_NAMES,
    AmbiguousName,
    Part,
    part_of_name,
    some,
    words_of,
)

# What is left of a name without the word for a part, and the part; None without such a word.
_Reading = tuple[str, Part | None]
_PART = re.compile(rf"(?:{'|'.join(sorted(PART_NAMES, key=len, reverse=True))}){HELD}")
# Words of shards and of the hub: `partial-train`, `test-00000-of-00001`.
_NO_REST = frozenset(["of", "partial"])
# Short for parts, beside each other alone; the `datasets` library does not know them.
_SHORT: dict[str, Part] = {"trn": "train", "tst": "test"}


def glued_parts(
    names: Iterable[str], related: Callable[[str, str], bool] | None = None
) -> list[str]:
    """Returns names that probably mean a part, although `part_of_name` finds none in them.

    ``strain`` and ``contest`` are words of their own. So a name counts only beside another one with
    the same rest and another part: ``birdstrain`` beside ``birdstest`` or ``birds_test``.

    Args:
        names: Names of adjacent files, without their suffixes, or of folders.
        related: Returns whether two names hold data of one kind. Such a name counts also beside a
            part without a rest (``minitrain`` beside ``test``), and beside its rest (``cubtest``
            beside ``cub``).
    """
    readings = {name: _readings(name) for name in dict.fromkeys(names)}
    owners: dict[_Reading, set[str]] = {}
    for name, found in readings.items():
        for reading in found:
            owners.setdefault(reading, set()).add(name)

    def owned(rest: str, part: Part | None) -> set[str]:
        """Returns names with this rest and any other part."""
        kinds = {*PART_NAMES.values()} - {part}
        return {name for kind in kinds for name in owners.get((rest, kind), set())}

    def means_a_part(name: str) -> bool:
        for rest, part in readings[name]:
            if part is None:
                continue
            if owned(rest, part) - {name}:
                return True
            beside = owned("", part) | owners.get((rest, None), set())
            if related is not None and any(related(name, other) for other in beside - {name}):
                return True
        return False

    return [name for name in readings if _is_unknown(name) and means_a_part(name)]


def glued_text(names: list[str]) -> str:
    """Returns what is wrong with names that `glued_parts` found, and what is allowed."""
    return (
        f"{some(names)} may mean a part (train, validation, test) and cannot be understood: put "
        "one of `-._ ` between that word and the rest (birds_train), or rename "
        f"{'them' if len(names) > 1 else 'it'}"
    )


def _is_unknown(name: str) -> bool:
    try:
        return part_of_name(name) is None
    except AmbiguousName:
        return False


def _readings(name: str) -> set[_Reading]:
    """Returns every way to read a name as a rest and a part."""
    words = words_of(name)
    try:
        told = part_of_name(name)
    except AmbiguousName:
        return set()
    if told is not None:
        rest = {word for word in words if not _PART.fullmatch(word)} - _NO_REST
        return {(word, told) for word in rest or {""}}
    found: set[_Reading] = {(word, None) for word in words}
    for word in words:
        if word in _SHORT:
            found |= {(rest, _SHORT[word]) for rest in {*words} - {word} or {""}}
        for known, part in PART_NAMES.items():
            for pattern in (rf"(.+?){known}{HELD}", rf"{known}(.+)"):
                match = re.fullmatch(pattern, word)
                if match:
                    found.add((match.group(1), part))
    return found
