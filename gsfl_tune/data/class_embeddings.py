"""Reads embeddings of class descriptions, one row a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gsfl_tune.data.sources._names import normal, some
from gsfl_tune.experiment.data_config import EMBEDDINGS
from gsfl_tune.experiment.errors import UserError

_COLUMNS = ("class", "embedding")


def has_embeddings(file: str | Path) -> bool:
    """Returns whether a file of ``data.class_text`` holds embeddings, by its suffix."""
    return Path(file).suffix.lower() in EMBEDDINGS


def read_class_embeddings(file: Path, classes: Sequence[str]) -> np.ndarray:
    """Reads the embedding of every class.

    Args:
        file: ``.npy`` with rows in the order of the classes; ``.safetensors`` with one tensor of
            such rows, or a tensor (E,) for each class under its name; or ``.parquet`` with the
            columns ``class`` and ``embedding``, a list of numbers.
        classes: Names of the classes.

    Returns:
        (C, E) float32 in the order of the classes.

    Raises:
        UserError: If the file cannot be read, lacks a class or names an unknown one, or if a row
            is not finite or is zero.
    """
    try:
        found = _READERS[file.suffix.lower()](file)
    except (OSError, ValueError, SafetensorError, pa.ArrowException) as error:
        raise UserError(f"data.class_text: {file} cannot be read: {error}") from error
    rows = found if isinstance(found, np.ndarray) else _ordered(file, found, classes)
    if rows.ndim != 2 or len(rows) != len(classes) or not rows.shape[1]:
        raise UserError(
            f"data.class_text: {file}: found an array {rows.shape}, allowed ({len(classes)}, "
            f"E): a row for each of the {len(classes)} classes"
        )
    try:
        rows = rows.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"data.class_text: {file}: found values of {rows.dtype}, allowed numbers"
        ) from error
    good = np.isfinite(rows).all(1) & (np.abs(rows).max(1) > 0)
    if not good.all():
        bad = [classes[place] for place in np.flatnonzero(~good).tolist()]
        raise UserError(
            f"data.class_text: {file}: embeddings that are zero or not finite, of {some(bad)}"
        )
    return rows


def _ordered(file: Path, found: dict[str, np.ndarray], classes: Sequence[str]) -> np.ndarray:
    missing = [name for name in classes if name not in found]
    strangers = sorted(found.keys() - set(classes))
    problems = [
        f"data.class_text: {file}: {what}: {some(names)}"
        for names, what in (
            (missing, f"no embedding for {len(missing)} of {len(classes)} classes"),
            (strangers, f"found {len(strangers)} not among the {len(classes)} classes of the data"),
        )
        if names
    ]
    sizes = {str(found[name].shape) for name in classes if name in found}
    if len(sizes) > 1:
        problems.append(
            f"data.class_text: {file}: found embeddings of the shapes {some(sorted(sizes))}, "
            "allowed one size for all classes"
        )
    if problems:
        raise UserError("\n".join(problems))
    return np.stack([found[name] for name in classes])


def _numpy(file: Path) -> np.ndarray:
    rows: np.ndarray = np.load(file, allow_pickle=False)
    return rows


def _safetensors(file: Path) -> np.ndarray | dict[str, np.ndarray]:
    found = load_file(file)
    if len(found) == 1 and next(iter(found.values())).ndim == 2:
        return next(iter(found.values()))
    return {normal(name).strip(): tensor for name, tensor in found.items()}


def _parquet(file: Path) -> dict[str, np.ndarray]:
    known = pq.read_schema(file).names
    lacking = [name for name in _COLUMNS if name not in known]
    if lacking:
        raise UserError(
            f"data.class_text: {file}: found the columns {some(known, 8)}, allowed "
            f"{' and '.join(_COLUMNS)}"
        )
    columns = pq.read_table(file, columns=list(_COLUMNS)).to_pydict()
    found: dict[str, np.ndarray] = {}
    twice: list[str] = []
    for name, values in zip(*(columns[each] for each in _COLUMNS), strict=True):
        known_as = normal(str(name)).strip()
        if known_as in found:
            twice.append(known_as)
        found[known_as] = np.asarray([] if values is None else values, dtype=np.float64)
    if twice:
        raise UserError(
            f"data.class_text: {file}: several embeddings for {len(twice)} classes: {some(twice)}"
        )
    return found


_READERS: dict[str, Any] = {".npy": _numpy, ".safetensors": _safetensors, ".parquet": _parquet}
