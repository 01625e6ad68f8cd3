"""Finds the image files for table rows: by path, by name, by an id without a suffix."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES
from gsfl_tune.data.sources._base import Part
from gsfl_tune.data.sources._names import counted, normal, some
from gsfl_tune.data.sources._row_parts import told_part
from gsfl_tune.data.sources._spelling import respelled
from gsfl_tune.data.sources._walk import HIDDEN, Listing, walk

# Number of rows that are tested to choose among several folders.
_ASKED = 20
# Folders of tables, which are beside those of images.
_DESCRIPTIONS = frozenset(
    ["annotation", "annotations", "ann", "anns", "labels", "meta", "metadata"]
)
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_SUFFIXES = IMAGE_SUFFIXES | HEIF_SUFFIXES
Stamp = tuple[int, int]


class NotFound(ValueError):
    """Raised for a row without a clear file; the text says what was found and what is allowed."""


class Locator:
    """Finds files for the rows of one table.

    Args:
        folder: Folder of the table.
        root: ``data.root``, if given.
        part: The part in the table's name.
        values: File names in its rows, to choose a folder.
    """

    def __init__(
        self, folder: Path, root: Path | None, part: Part | None, values: Iterable[str]
    ) -> None:
        above = [folder.parent] if folder.name.lower() in _DESCRIPTIONS else []
        roots = [root] if root is not None else [folder, *above]
        self._below = roots[-1]
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._index: dict[str, list[tuple[str, ...]]] | None = None
        self._passed: dict[str, int] = {}
        self._elsewhere = root is None
        self._folder = folder
        self.base = folder if root is None else root
        if root is None:
            asked = list(dict.fromkeys(values))[:_ASKED]
            bases = [base for each in roots for base in _bases(each, part)]
            hits = [sum(self._is_at(base, value) for value in asked) for base in bases]
            self.base = bases[hits.index(max(hits))] if any(hits) else folder
        self._base_part = told_part(self.base.name) if self.base not in roots else None
        self._told = part or self._base_part

    def find(self, value: str, part: Part | None) -> tuple[Path, Stamp | None]:
        """Returns the file of a row, and its size and time of change; None if it does not exist.

        Args:
            value: A path, a name, or an id.
            part: The part of the row. Files in folders of its own part come first; those in folders
                of other parts are ignored, except those of training.

        Raises:
            NotFound: If several files have the name, or it cannot be a file's.
        """
        found = None
        other = part is not None and self._base_part not in (None, part)
        if other:
            # The folder of another part may have a file of the same name.
            found = self._inside(self._anywhere(value, part, own=True))
        if found is None and not (other and self._base_part != "train"):
            found = self._at(self.base, value)
        if found is None:
            found = self._inside(self._anywhere(value, part))
        if found is None:
            missing = self._below if other else self.base
            return missing / next(iter(_forms(value))), None
        return Path(found[0]), found[1]

    def told(self, name: str) -> list[str]:
        """Returns notices: the folder of the images, and files that were not searched for them.

        Args:
            name: Name of the table.
        """
        lines = []
        if self._elsewhere and self.base != self._folder:
            lines.append(f"{name}: its images lie in {self.base}")
        if self._passed:
            passed = counted(self._passed.items(), "file")
            lines.append(f"{name}: not searched for its images: {passed}")
        return lines

    def _is_at(self, base: Path, value: str) -> bool:
        try:
            return self._at(base, value) is not None
        except NotFound:
            return False

    def _at(self, base: Path, value: str) -> tuple[str, Stamp] | None:
        """Returns the file that a value names, relative to a folder."""
        for form in _forms(value):
            path = os.path.join(base, form)
            found = _stat(path) or self._with_suffix(path)
            if found is not None:
                return found
        return None

    def _with_suffix(self, path: str) -> tuple[str, Stamp] | None:
        """Returns the only image whose name without suffix is that of a path."""
        folder, name = os.path.split(path)
        if folder not in self._listed:
            self._listed[folder] = _stems(folder)
        names = self._listed[folder].get(normal(name), [])
        if len(names) > 1:
            raise NotFound(f"several files are called {name}: {some(names)}; name the suffix")
        return _stat(os.path.join(folder, names[0])) if names else None

    def _inside(self, names: tuple[str, ...] | None) -> tuple[str, Stamp] | None:
        return None if names is None else _stat(os.path.join(self._below, *names))

    def _anywhere(
        self, value: str, part: Part | None, *, own: bool = False
    ) -> tuple[str, ...] | None:
        """Returns the only image below the root whose path ends with a value.

        Args:
            value: A path, a name, or an id.
            part: The part of the row.
            own: Whether only folders of this part count.
        """
        if self._index is None:
            self._index = {}
            listing = walk(self._below) if self._below.is_dir() else Listing()
            self._passed = {
                reason: count
                for reason, count in listing.left_out.items()
                if reason == HIDDEN or reason.startswith("in ")
            }
            for found in listing.images:
                path = (*found.folders, found.file.name)
                for name in {found.file.name, found.file.stem}:
                    self._index.setdefault(normal(name), []).append(path)
        for form in _forms(value):
            *folders, name = [
                piece for piece in normal(form).split("/") if piece not in ("", ".")
            ] or [""]
            found_paths = [
                path
                for path in self._index.get(name, [])
                if [*map(normal, path[-1 - len(folders) : -1])] == folders
            ]
            told = part or self._told
            if told is not None:
                # Test images often have the same names as training images.
                parts = [{*map(told_part, path[:-1])} - {None} for path in found_paths]
                pairs = list(zip(found_paths, parts, strict=True))
                found_paths = [path for path, parts in pairs if told in parts]
                if not found_paths and not own:
                    found_paths = [path for path, parts in pairs if parts <= {"train"}]
            if len(found_paths) > 1:
                shown = some(["/".join(path) for path in found_paths], 3)
                raise NotFound(
                    f"{form} may be several files below {self._below}: {shown}; allowed: a path "
                    "from data.root"
                )
            if found_paths:
                return found_paths[0]
        return None


def _bases(root: Path, part: Part | None) -> list[Path]:
    """Lists folders that a table's paths may start from, the most likely first."""
    try:
        children = sorted(child for child in root.iterdir() if child.is_dir())
    except OSError:
        children = []
    images = [child for child in children if child.name.lower() in ("images", "imgs", "img")]
    told = [child for child in children if told_part(child.name) == (part or "train")]
    return [root, *images, *told]


def _forms(value: str) -> Iterator[str]:
    """Yields paths that a cell may mean: unchanged, and without the prefix of Label Studio.

    Raises:
        NotFound: If it is a URL.
    """
    local = re.sub(r"^https?://[^/]+(?=/data/(?:upload|local-files)/)", "", value)
    if local.startswith("/data/local-files/"):
        asked = local.partition("?d=")[2].lstrip("/")
        yield urllib.parse.unquote(asked)
        yield asked
        return
    if local.startswith("/data/upload/"):
        pieces = urllib.parse.unquote(local).strip("/").split("/")
        for start in range(len(pieces)):
            yield "/".join(pieces[start:])
        # Label Studio writes eight hexadecimal digits before the original file name.
        if _UPLOAD.match(pieces[-1]):
            yield _UPLOAD.sub("", pieces[-1])
        return
    if "://" in local:
        raise NotFound(f"found the address {value}, allowed a file: fetch it, and name data.root")
    yield local.replace("\\", "/") if "/" not in local else local


def _stat(path: str) -> tuple[str, Stamp] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        other = respelled(path)
        return None if other is None else _stat(other)
    return (path, (status.st_size, status.st_mtime_ns)) if not os.path.isdir(path) else None


def _stems(folder: str) -> dict[str, list[str]]:
    """Returns images of a folder by their names without suffix."""
    found: dict[str, list[str]] = {}
    try:
        names: Sequence[str] = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return found
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in _SUFFIXES:
            found.setdefault(normal(stem), []).append(name)
    return found
