"""Finds files that describe images (tables, COCO) and their parts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gsfl_tune.data.sources._base import Part, expand, some
from gsfl_tune.data.sources._file_parts import part_of, refuse_glued, wanted
from gsfl_tune.experiment.errors import UserError

# Tables without labels that Kaggle provides.
_NO_LABELS = re.compile(r"sample[-_ ]?submission", re.IGNORECASE)
# If a table has one of these names, other tables are ignored.
METADATA = re.compile(r"metadata\.(?:csv|tsv|jsonl)|_classes\.csv|_annotations\.csv", re.IGNORECASE)
CSV_SUFFIXES = (".csv", ".tsv")
JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")
_COCO_KEYS = re.compile(rb'"(?:images|annotations|categories)"\s*:')
_HEAD = 1 << 16


@dataclass(frozen=True)
class Description:
    """Names a file that describes images.

    Attributes:
        file: Its absolute path.
        part: The part in its name, or in the name of a folder around it.
        named: Whether the experiment names the file itself, not its folder.
    """

    file: Path
    part: Part | None
    named: bool

    def without_part(self) -> Description:
        """Returns the same file without a part."""
        return replace(self, part=None)


def find_descriptions(
    path: str | list[str] | None,
    suits: Callable[[Path], bool],
    what: str,
    left_out: Counter[str] | None = None,
) -> list[Description]:
    """Finds all files that ``data.path`` names, in order.

    Of a folder, files called `METADATA` if there are any, else the uppermost files.

    Args:
        path: Files, and folders with such files.
        suits: Returns whether a file of a folder is such a file.
        what: Kind of the files, for messages.
        left_out: Counts hidden files of the kind, and those in folders that programs make.

    Raises:
        UserError: If an entry does not exist or has no such file, or a name is ambiguous.
    """
    if path is None or path == []:
        raise UserError(f"data.path is missing: it must name {what}, or a folder that holds some")
    skipped = Counter[str]() if left_out is None else left_out
    found: dict[Path, Description] = {}
    for entry in [path] if isinstance(path, str) else path:
        place = os.path.abspath(expand(entry))
        if not os.path.exists(place):
            raise UserError(f"data.path: {entry} does not exist (looked in {Path.cwd()})")
        if not os.path.isdir(place):
            found[Path(place)] = Description(Path(place), part_of(place), True)
            continue
        listed = [str(file) for file in _walk(place) if suits(file)]
        kept = wanted(listed, place, skipped, hidden=(".",))
        inside = _uppermost([Path(name) for name in kept])
        if not inside:
            raise UserError(f"data.path: {entry} holds no {what}")
        found.update((file, Description(file, part_of(str(file), place), False)) for file in inside)
    if not any(file.part for file in found.values()):
        refuse_glued([str(file) for file in found])
    return list(found.values())


def _walk(root: str) -> list[Path]:
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        files += [Path(folder, name) for name in sorted(names)]
    return [file for file in files if not _NO_LABELS.search(file.name)]


def _uppermost(files: list[Path]) -> list[Path]:
    called = [file for file in files if METADATA.fullmatch(file.name)]
    depth = min((len(file.parts) for file in called or files), default=0)
    return called or [file for file in files if len(file.parts) == depth]


def is_coco(file: Path) -> bool:
    """Returns whether a JSON file begins like COCO, with images, annotations or categories."""
    start = _start(file)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and bool(_COCO_KEYS.search(start))


def is_csv(file: Path) -> bool:
    """Returns whether a file is a text table by its suffix."""
    return file.suffix.lower() in CSV_SUFFIXES


def is_jsonl(file: Path) -> bool:
    """Returns whether a file has JSON lines or a JSON list, by suffix and first character."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        return _start(file).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return suffix in JSONL_SUFFIXES


def _start(file: Path) -> bytes:
    if file.suffix.lower() != ".json":
        return b""
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""


def use_alone(files: list[Description], notices: list[str], *, scoring: bool) -> list[Description]:
    """Uses a test part as all images if there is no other part."""
    if {file.part for file in files} != {"test"} or scoring:
        return files
    notices.append(
        f"{some([str(file.file) for file in files], 2)}: called a test part, and there is no "
        "other: used as images without a split"
    )
    return [file.without_part() for file in files]


def unsplit_beside_split(files: list[Description]) -> str | None:
    """Returns the problem of files without a part beside files with one; None without it."""
    unsplit = [str(file.file) for file in files if file.part is None]
    if not unsplit or len(unsplit) == len(files):
        return None
    return (
        "data.path: some names of files tell their part (train, validation, test) and these do "
        f"not: {some(unsplit)}"
    )
