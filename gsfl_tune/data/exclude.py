"""Leaves out the images that ``data.exclude`` lists, for every source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.sources import Reader, Source
from gsfl_tune.data.sources._base import expand
from gsfl_tune.data.sources._names import normal
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError

REASON = "named by data.exclude"
# Header of the table of `gsfl-tune data --issues`, which is not such a list.
_TABLE = "path,class,part,"


def leave_out(source: Source, config: DataConfig) -> Source:
    """Leaves out the images that ``data.exclude`` lists, and counts them.

    A line is a path as in messages, or relative to the current directory or ``data.path``. Lines
    that match no image give a notice.

    Args:
        source: All images.
        config: The section ``data``.

    Returns:
        The source itself if nothing is listed.

    Raises:
        UserError: If the list cannot be read, or is not a list of paths.
    """
    if config.exclude is None:
        return source
    lines = read_list(Path(expand(config.exclude)))
    found = find_images(source, lines, config)
    named = {position for positions in found for position in positions}
    strangers = [line for line, positions in zip(lines, found, strict=True) if not positions]
    if strangers:
        source.notices.append(
            f"data.exclude: {len(strangers):,} of {len(lines):,} lines of {config.exclude} match "
            f"no image, such as {strangers[0]!r}"
        )
    if not named:
        return source
    source.left_out[REASON] += len(named)
    rest = [position for position in range(len(source.samples)) if position not in named]
    return Rest(source, rest)


def find_images(source: Source, lines: Sequence[str], config: DataConfig) -> list[list[int]]:
    """Finds the images that lines of a file name.

    Args:
        source: All images.
        lines: Paths as in messages, or relative to the current directory or ``data.path``.
        config: The section ``data``.

    Returns:
        Positions of the images of each line; several for the boxes of a photograph.
    """
    places: dict[str, list[int]] = {}
    for position, sample in enumerate(source.samples):
        for spelling in {normal(sample.path), _whole(sample.path)}:
            places.setdefault(spelling, []).append(position)
    folders = _folders(config)
    found = []
    for line in lines:
        spellings = [normal(line), _whole(line), *(_whole(line, folder) for folder in folders)]
        found.append(next((places[spelling] for spelling in spellings if spelling in places), []))
    return found


def read_list(file: Path) -> list[str]:
    """Reads a list of paths, one per line; empty lines and lines that begin with # are skipped.

    Args:
        file: A text file in UTF-8.

    Raises:
        UserError: If it cannot be read, is not UTF-8, or is the table of issues.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"data.exclude: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.exclude: {file}: found bytes that are not UTF-8 at {error.start}, allowed a "
            "text with one path a line"
        ) from error
    lines = [line.strip() for line in text.split("\n")]
    if lines[0].startswith(_TABLE):
        raise UserError(
            f"data.exclude: {file}: line 1: found the header of a table, allowed one path a line "
            "and nothing else"
        )
    return [line for line in lines if line and not line.startswith("#")]


class Rest(Source):
    """Gives some of the images of another source.

    Args:
        whole: The other source.
        kept: Positions of its images, ascending.
    """

    def __init__(self, whole: Source, kept: list[int]) -> None:
        super().__init__()
        # Parts, notices and other knowledge of the source.
        vars(self).update(vars(whole))
        self.classes = list(whole.classes)
        self.samples = [whole.samples[position] for position in kept]
        self._whole = whole
        self._kept = kept
        self.drop_empty_classes()

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields the readers of the other source."""
        place = {self._kept[int(position)]: int(position) for position in positions}
        for position, reader in self._whole.readers(list(place)):
            yield place[position], reader

    def annotations(self) -> Annotations:
        """Returns the annotations of the other source."""
        return self._whole.annotations().rows(np.asarray(self._kept, dtype=np.int64))

    def known_digests(self) -> list[bytes] | None:
        """Returns the digests of the other source."""
        known = self._whole.known_digests()
        return None if known is None else [known[position] for position in self._kept]


def _folders(config: DataConfig) -> list[str]:
    """Returns folders with the images, as far as ``data.path`` tells."""
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    local = [expand(path) for path in paths if "://" not in path]
    return [path if os.path.isdir(path) else os.path.dirname(path) for path in local]


def _whole(path: str, folder: str = "") -> str:
    """Makes local paths comparable; names of remote images do not change."""
    return normal(path if "://" in path else os.path.abspath(os.path.join(folder, path)))
