"""Images that ``data.split.together`` keeps in one part, for every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gsfl_tune.data.exclude import find_images
from gsfl_tune.data.near import components
from gsfl_tune.data.sources import Sample, Source
from gsfl_tune.data.sources._base import expand
from gsfl_tune.data.sources._names import some
from gsfl_tune.data.sources._rows import read_rows
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError

_KEY = "data.split.together"
COLUMNS = ("path", "set")


def mark_sets(source: Source, config: DataConfig) -> None:
    """Tells the samples of a source which sets of ``data.split.together`` they are in.

    Sets that share an image are one. Lines that match no image, or name no set, give a notice.

    Args:
        source: All images.
        config: The section ``data``.

    Raises:
        UserError: If the table, or a line of it, cannot be read, or it lacks a column.
    """
    if config.split.together is None:
        return
    lines = _read(Path(expand(config.split.together)))
    rows = [(path, name) for path, name in lines if path and name]
    found = find_images(source, [path for path, _ in rows], config)
    # Images and sets are nodes of a graph; a line is an edge.
    images = len(source.samples)
    nodes = {name: images + place for place, name in enumerate({name: 0 for _, name in rows})}
    edges = [
        (position, nodes[name])
        for (_, name), positions in zip(rows, found, strict=True)
        for position in positions
    ]
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    numbers = components(first, second, images + len(nodes))
    listed = np.unique(first)
    counts = np.bincount(numbers[listed], minlength=len(numbers))
    for position in listed.tolist():
        number = int(numbers[position])
        if counts[number] > 1:
            source.samples[position] = replace(source.samples[position], together=number)
    shared = counts[counts > 1]
    source.notices.append(
        f"{_KEY}: {int(shared.sum()):,} images in {len(shared):,} set"
        f"{'' if len(shared) == 1 else 's'}, which no split divides"
    )
    strangers = [path for (path, _), positions in zip(rows, found, strict=True) if not positions]
    if strangers:
        source.notices.append(
            f"{_KEY}: {len(strangers):,} of {len(rows):,} lines of {config.split.together} match "
            f"no image, such as {strangers[0]!r}"
        )
    if empty := len(lines) - len(rows):
        source.notices.append(
            f"{_KEY}: {empty:,} of {len(lines):,} lines of {config.split.together} lack a path or "
            "a set"
        )


def sets_of(samples: Sequence[Sample]) -> np.ndarray | None:
    """Returns (N,) int64, equal numbers for images of one set; None if there is no set."""
    if all(sample.together is None for sample in samples):
        return None
    numbers: dict[int, int] = {}
    return np.array(
        [
            len(samples) + numbers.setdefault(sample.together, len(numbers))
            if sample.together is not None
            else position
            for position, sample in enumerate(samples)
        ],
        dtype=np.int64,
    )


def _read(file: Path) -> list[tuple[str, str]]:
    """Returns path and set of every line, each of which may be empty."""
    try:
        rows = read_rows(file)
    except UserError as error:
        raise UserError(f"{_KEY}: {error}") from error
    if not {*COLUMNS} <= {*rows.columns}:
        raise UserError(
            f"{_KEY}: {file}: found the columns {some(rows.columns, 8)}, allowed a table with "
            f"{' and '.join(COLUMNS)}, such as the together.csv of `gsfl-tune data --issues`"
        )
    if rows.problems:
        raise UserError("\n".join(f"{_KEY}: {problem}" for problem in rows.problems))
    paths, names = (rows.values[column] for column in COLUMNS)
    return [(_text(path), _text(name)) for path, name in zip(paths, names, strict=True)]


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
