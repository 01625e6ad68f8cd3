"""Finds images that a user names: files, folders, patterns, lists, URLs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gsfl_tune.data.fetch import is_url
from gsfl_tune.data.sources._names import NOT_UTF8, counted, is_utf8
from gsfl_tune.data.sources._walk import is_junk, walk, why_left_out
from gsfl_tune.experiment.errors import UserError

STDIN = "-"


@dataclass(frozen=True)
class NotFound:
    """Names an entry that gives no image, and the reason."""

    name: str
    reason: str


@dataclass
class NamedImages:
    """Finds images one by one, when they are requested.

    A folder gives the images in it and below, by the same rules as a data set's folders. So do
    folders and files that match a pattern. A file that is named itself is used without such rules.

    Args:
        names: Files, folders, patterns (``**`` for folders at any depth) and URLs.
        allow_url: Whether URLs may be fetched.
        any_name: Whether names that are not UTF-8 are used too, for a caller that only reads and
            shows.

    Attributes:
        left_out: Counts of files in folders and patterns that are not images, by reason.
    """

    names: Iterable[str]
    allow_url: bool = False
    any_name: bool = False
    left_out: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str | NotFound]:
        """Yields paths and URLs, and entries that give none."""
        for name in self.names:
            yield from self._of(name)

    def told(self) -> list[str]:
        """Describes the files left out so far, in at most one line."""
        return [f"left out: {counted(self.left_out.items(), 'file')}"] if self.left_out else []

    def _of(self, name: str) -> Iterator[str | NotFound]:
        # An existing path is a path, whatever characters it has.
        if os.path.isdir(name):
            yield from self._folder(name)
        elif os.path.exists(name):
            wrong = not self.any_name and not is_utf8(name)
            yield NotFound(name, "the name is not UTF-8; rename it") if wrong else name
        elif is_url(name):
            yield name if self.allow_url else NotFound(name, "a URL, fetched with --allow-url only")
        elif glob.has_magic(name):
            yield from self._pattern(name)
        else:
            yield NotFound(name, "no such file")

    def _folder(self, name: str) -> Iterator[str | NotFound]:
        try:
            listing = walk(Path(name), any_name=self.any_name)
        except OSError as error:
            yield NotFound(name, f"the folder cannot be listed ({error.strerror})")
            return
        self.left_out += listing.left_out
        if not listing.images:
            yield NotFound(name, "no image in this folder")
        for found in listing.images:
            yield str(found.file)

    def _pattern(self, name: str) -> Iterator[str | NotFound]:
        given = 0
        for match in sorted(glob.iglob(name, recursive=True)):
            if junk := _junk_above(match, name):
                count = 1
                if os.path.isdir(match):
                    # `**` also matches the folder's content.
                    inside = [] if "**" in name else os.walk(match)
                    count = sum(len(files) for _, _, files in inside)
                if count:
                    self.left_out[f"in {junk}/"] += count
            elif not os.path.isdir(match):
                reason = why_left_out(Path(match))
                if reason is None and not self.any_name and not is_utf8(match):
                    reason = NOT_UTF8
                if reason is None:
                    given += 1
                    yield match
                else:
                    self.left_out[reason] += 1
            elif "**" not in name:  # whose content the pattern matches anyway
                given += 1
                yield from self._folder(match)
        if not given:
            yield NotFound(name, "no image matches this pattern")


def _junk_above(match: str, pattern: str) -> str | None:
    """Returns the junk folder above a match, unless the pattern spells it out."""
    spelt = 0
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        spelt += 1
    below = Path(match).parts[spelt:]
    folders = below if os.path.isdir(match) else below[:-1]
    return next((folder for folder in folders if is_junk(folder)), None)


def names_of_list(path: str) -> Iterator[str]:
    """Yields the names of a list, one per line; empty lines are left out.

    Args:
        path: A text file, or ``-`` for standard input. Relative names start at the current
            directory.

    Raises:
        UserError: If the list cannot be read.
    """
    try:
        # Not `sys.stdin`, which Python closes when the process ends, even while a thread reads.
        stdin = path == STDIN
        with open(0 if stdin else path, "rb", closefd=not stdin) as lines:
            for line in lines:
                name = os.fsdecode(line).rstrip("\r\n").removeprefix("\ufeff")
                if name.strip():
                    yield name
    except OSError as error:
        raise UserError(f"--files-from {path}: cannot be read ({error.strerror})") from error
