"""Parts, configurations and unwanted files among files that are found by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from gsfl_tune.data.sources._glued import glued_parts, glued_text
from gsfl_tune.data.sources._names import (
    NOT_UTF8,
    PART_NAMES,
    AmbiguousName,
    Part,
    is_utf8,
    part_of_name,
    some,
)
from gsfl_tune.data.sources._walk import HIDDEN, is_junk
from gsfl_tune.experiment.errors import UserError


def part_of(name: str, root: str = "") -> Part | None:
    """Returns the part in a file's name, else the part of the nearest folder that has one.

    Args:
        name: Path of the file.
        root: Folder below which folder names count. Without it only the file's folder counts, and
            only if its whole name is a part (``test``, ``partial-train``).

    Raises:
        UserError: If a name contains a word for a part but is ambiguous.
    """
    path = PurePosixPath(name)
    folders = _below(name, root)
    if not root:
        above = path.parent.name
        folders = (above,) if above.lower().removeprefix("partial-") in PART_NAMES else ()
    try:
        own = part_of_name(path.name.removesuffix(path.suffix))
        told = [part for part in map(part_of_name, reversed(folders)) if part is not None]
    except AmbiguousName as error:
        raise UserError(
            f"data.path: {name}: the name {error} holds a word for a part (train, validation, "
            "test) and cannot be understood; rename it"
        ) from None
    if own is not None and root and told and told[0] != own:
        raise UserError(
            f"data.path: {name}: the file is called {own} and lies in a folder that is called "
            f"{told[0]}; move or rename it"
        )
    return own or (told[0] if told else None)


def refuse_glued(names: Sequence[str], root: str = "") -> None:
    """Refuses files without a part if names of files or folders probably mean one.

    Args:
        names: Paths of files that are read together, none of which has a part (`part_of`).
        root: Folder below which folder names count. Without it the folder around each file counts.

    Raises:
        UserError: If `glued_parts` finds some.
    """
    levels: dict[int, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders = _below(name, root) if root else (path.parent.name,)
        for depth, each in enumerate((path.stem, *folders)):
            levels.setdefault(depth, []).append(each)
    for level in levels.values():
        found = glued_parts(level, lambda one, other: True)
        if found:
            raise UserError(f"data.path: {glued_text(found)}")


def choose_config(names: Sequence[str], root: str, config: str | None) -> list[str]:
    """Returns the files of a folder that belong to one configuration, as on the hub.

    Raises:
        UserError: If there are several and none is chosen, or the chosen one does not exist.
    """
    found: dict[str, list[str]] = {}
    shards: dict[str, str] = {}
    for name in names:
        folders = [f for f in _below(name, root) if not _no_config(f)]
        first = folders[0] if folders else "."
        # Folders of shards (`part0/`, `part1/`) are one configuration.
        first = shards.setdefault(re.sub(r"\d+", "0", first), first)
        found.setdefault(first, []).append(name)
    if config is not None:
        if config not in found:
            raise UserError(f"data.config: {root} has no {config}, but {some(sorted(found))}")
        return found[config]
    if len(found) > 1:
        raise UserError(
            f"data.path: {root} holds {len(found)} configurations side by side, which may hold the "
            f"same images: {some(sorted(found))}; data.config names the one that is meant"
        )
    return list(names)


def wanted(
    names: Sequence[str],
    root: str | None,
    left_out: Counter[str],
    hidden: tuple[str, ...] = (".", "_"),
) -> list[str]:
    """Returns the files that are not hidden, that no program made for itself, and named in UTF-8.

    Args:
        names: Paths of files.
        root: Folder below which folder names count; None if none counts.
        left_out: Counts the others by reason.
        hidden: Beginnings of names of hidden files.
    """
    kept = []
    for name in names:
        folders = () if root is None else _below(name, root)
        junk = next((folder for folder in folders if is_junk(folder)), None)
        if junk is not None:
            left_out[f"in {junk}/"] += 1
        elif PurePosixPath(name).name.startswith(hidden):
            left_out[HIDDEN] += 1
        elif not is_utf8(name):
            left_out[NOT_UTF8] += 1
        else:
            kept.append(name)
    return kept


def _below(name: str, root: str) -> tuple[str, ...]:
    """Returns the names of the folders between a root and a file."""
    parts, above = PurePosixPath(name).parts, PurePosixPath(root).parts
    return parts[len(above) : -1]


def _no_config(folder: str) -> bool:
    """Returns whether a folder's name is a part or has no meaning."""
    if folder.lower() == "data" or "=" in folder:
        return True
    try:
        return part_of_name(folder) is not None
    except AmbiguousName:
        return True
