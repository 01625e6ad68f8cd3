"""Images that ``data.split.together`` keeps in one part, for every source."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsfl_tune.data.exclude import find_images
from gsfl_tune.data.sources import Sample, Source
from gsfl_tune.data.sources._base import expand
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError

_KEY = "data.split.together"
COLUMNS = ("path", "set")


def mark_sets(source: Source, config: DataConfig) -> None:
    """Tells the samples of a source which sets of ``data.split.together`` they are in.

    Sets that share an image are one. Lines that match no image give a notice.

    Args:
        source: All images.
        config: The section ``data``.

    Raises:
        UserError: If the table cannot be read, or lacks a column.
    """
    if config.split.together is None:
        return
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = _read(Path(expand(config.split.together)))
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
    shape = (images + len(nodes),) * 2
    graph = coo_matrix((np.ones(len(edges), bool), (first, second)), shape=shape)
    numbers = connected_components(graph, directed=False)[1]
    listed = np.unique(first)
    counts = np.bincount(numbers[listed], minlength=shape[0])
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
    """Returns path and set of every line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or []
            if not {*COLUMNS} <= {*header}:
                raise UserError(
                    f"{_KEY}: {file}: found the columns {', '.join(header) or 'of no table'}, "
                    f"allowed a CSV file with {' and '.join(COLUMNS)}, such as the together.csv "
                    "of `gsfl-tune data --issues`"
                )
            rows = [((row["path"] or "").strip(), (row["set"] or "").strip()) for row in reader]
    except OSError as error:
        raise UserError(f"{_KEY}: {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{_KEY}: {file} cannot be read as CSV in UTF-8: {error}") from error
    return [(path, name) for path, name in rows if path and name]
