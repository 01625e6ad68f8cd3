"""Tables of predictions: one row per image, written as predictions arrive."""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.data.sources._names import as_utf8
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.prediction import Prediction

# Rows per group of a Parquet file, which are held in memory.
_GROUP = 4096


class PredictionFile(ABC):
    """Writes a table with ``path``, ``class_1``, ``probability_1``, ..., and ``rejected``.

    It appears under its name when it is complete; an existing file is replaced.

    Args:
        target: The file.
        top: Classes per image.
        threshold: Whether there is a threshold: then ``rejected`` says if an image is below it.

    Raises:
        UserError: If the file cannot be written.
    """

    def __init__(self, target: Path, top: int, *, threshold: bool) -> None:
        self.target = target
        self.rows = 0
        self._part = target.with_name(f".{target.name}.{os.getpid()}.part")
        self._threshold = threshold
        self.columns = ["path"]
        for rank in range(1, top + 1):
            self.columns += [f"class_{rank}", f"probability_{rank}"]
        if threshold:
            self.columns.append("rejected")
        if target.is_dir():
            raise UserError(f"{target}: is a directory, allowed is the name of a file")
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._open(self._part)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = error.strerror or error
            raise UserError(f"{self.target}: cannot be written ({said})") from error

    def add(self, prediction: Prediction) -> None:
        """Adds the row of an image."""
        # The file must be valid text even if a name is not.
        row: list[Any] = [as_utf8(prediction.path)]
        for name, value in zip(prediction.classes, prediction.probabilities, strict=True):
            row += [name, value]
        if self._threshold:
            row.append(bool(prediction.unknown))
        with self._told():
            self._write(row)
        self.rows += 1

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                with suppress(OSError, pa.ArrowException):  # of a full disk is told already
                    self._close()
                return
            with self._told():
                self._close()
                os.replace(self._part, self.target)
        finally:
            self._part.unlink(missing_ok=True)

    @abstractmethod
    def _open(self, path: Path) -> None:
        """Opens the file."""

    @abstractmethod
    def _write(self, row: list[Any]) -> None:
        """Adds a row, values in the order of `columns`."""

    @abstractmethod
    def _close(self) -> None:
        """Completes the file."""


class CsvFile(PredictionFile):
    """Writes a CSV file in UTF-8 with a header."""

    _file: IO[str]

    def _open(self, path: Path) -> None:
        self._file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(self.columns)

    def _write(self, row: list[Any]) -> None:
        self._writer.writerow(
            [str(each).lower() if isinstance(each, bool) else each for each in row]
        )

    def _close(self) -> None:
        self._file.close()


class ParquetFile(PredictionFile):
    """Writes a Parquet file: strings, doubles, and a boolean."""

    def _open(self, path: Path) -> None:
        kinds = {"path": pa.string(), "rejected": pa.bool_()}
        self._schema = pa.schema(
            [
                (name, kinds.get(name, pa.string() if name.startswith("class_") else pa.float64()))
                for name in self.columns
            ]
        )
        self._waiting: list[list[Any]] = []
        self._writer = pq.ParquetWriter(path, self._schema)

    def _write(self, row: list[Any]) -> None:
        self._waiting.append(row)
        if len(self._waiting) == _GROUP:
            self._flush()

    def _close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            columns = [list(column) for column in zip(*self._waiting, strict=True)]
            self._waiting = []
            self._writer.write_table(pa.table(columns, schema=self._schema))
