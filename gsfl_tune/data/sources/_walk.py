"""Finds the image files of a folder, and counts the files left out by reason."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES, heif, looks_like_image
from gsfl_tune.data.sources._names import JUNK_FILES, JUNK_FOLDERS, NOT_UTF8, as_utf8, is_utf8

# Most suffixes that are counted one by one; numbered files may have as many as files.
_KINDS = 20
# Reason of `Listing.left_out`.
HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Found:
    """Names an image file.

    Attributes:
        folders: Names of the folders between the root and the file.
        file: Its path.
        stamp: (size in bytes, time of change in ns); None for a broken link.
    """

    folders: tuple[str, ...]
    file: Path
    stamp: tuple[int, int] | None


@dataclass
class Listing:
    """Holds the content of a folder.

    Attributes:
        images: Image files in the order of their paths.
        folders: Names from the root to every folder that is not junk, including empty ones.
        left_out: Number of files that are not images or not wanted, by reason.
    """

    images: list[Found] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def folders_below(self, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Returns the names from the root to the folders in a folder, at any depth."""
        return [
            folders
            for folders in self.folders
            if len(folders) > len(names) and folders[: len(names)] == names
        ]

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts files that are not read."""
        reason = as_utf8(reason)
        if reason in self.left_out or len(self.left_out) < _KINDS:
            self.left_out[reason] += count
        else:
            self.left_out["other suffixes"] += count


def walk(root: Path, *, any_name: bool = False) -> Listing:
    """Lists a folder and all below it; links are followed.

    Left out and counted are hidden files, those of `JUNK_FOLDERS` and `JUNK_FILES`, and files
    without a suffix of an image format. For a file without any suffix its first bytes decide.

    Args:
        root: An existing folder.
        any_name: Whether names that are not UTF-8 are listed too; else they are left out.
    """
    listing = Listing()
    _walk(str(root), (), {_identity(str(root))}, listing, any_name)
    return listing


def _walk(
    folder: str,
    names: tuple[str, ...],
    above: set[tuple[int, int]],
    listing: Listing,
    any_name: bool,
) -> None:
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for entry in children:
        name = entry.name
        if entry.is_dir():
            if is_junk(name):
                listing.leave_out(f"in {name}/", _count(entry.path))
                continue
            if not any_name and not is_utf8(entry.path):
                listing.leave_out(NOT_UTF8, _count(entry.path))
                continue
            identity = _identity(entry.path) if entry.is_symlink() else None
            if identity in above:
                listing.leave_out("links to a folder above them")
                continue
            listing.folders.append((*names, name))
            below = above | {identity or _identity(entry.path)}
            _walk(entry.path, (*names, name), below, listing, any_name)
            continue
        reason = why_left_out(entry)
        if reason is None and not any_name and not is_utf8(entry.path):
            reason = NOT_UTF8
        if reason is not None:
            listing.leave_out(reason)
            continue
        listing.images.append(Found(names, Path(entry.path), _stamp(entry)))


def is_junk(name: str) -> bool:
    """Returns whether a folder is hidden, or created by a program beside images."""
    return name.startswith((".", "__")) or name.lower() in JUNK_FOLDERS


def why_left_out(entry: os.DirEntry[str] | Path) -> str | None:
    """Returns why a file is not used as an image; None for an image."""
    name = entry.name
    suffix = os.path.splitext(name)[1].lower()
    if name.lower() in JUNK_FILES:
        return name
    if name.startswith("."):
        return HIDDEN
    if not entry.is_file():
        return "links that lead nowhere" if entry.is_symlink() else "no regular file"
    if suffix in IMAGE_SUFFIXES:
        return None
    if suffix in HEIF_SUFFIXES:
        return None if heif() else f"{suffix} (needs the extra `heic`)"
    if suffix:
        return suffix
    return None if looks_like_image(os.fspath(entry)) else "no suffix"


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = entry.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _count(folder: str) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
