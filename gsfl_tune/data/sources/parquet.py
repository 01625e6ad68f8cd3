"""Parquet files in the image layout of the Hugging Face hub."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.data.sources._base import Reader, Sample, Source, some
from gsfl_tune.data.sources._remote import find_parquet
from gsfl_tune.data.sources._tables import Columns, LabelledTable, open_table

_ROWS_AT_ONCE = 64


class ParquetSource(Source):
    """A column of images (struct<bytes, path> or binary) and one of labels.

    Names of integer labels come from the schema's ``huggingface`` metadata; without them a label's
    number is its name. Rows without a label (null, or -1) are left out and counted. Names of files
    tell the parts, see `part_of_name`; failing that, the folder that a file lies in.

    Args:
        path: A file, a folder, a pattern with ``*``, or a list of those; local or a URL.
        cache: Where files of other machines are kept.
        config: Which of several configurations side by side.
        image_column: Name of the column of images; default: found.
        label_column: Name of the column of labels; default: found.
        group_column: Name of the column of what an image belongs to, if any.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If nothing is found or a file does not have this layout.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        cache: Path,
        *,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        scoring: bool = False,
    ) -> None:
        super().__init__()
        self.kind = "row"
        self._scoring = scoring
        columns = Columns(image_column, label_column, group_column)
        files = find_parquet(path, cache, config)
        if {file.part for file in files} == {"test"} and not scoring:
            # As somebody has it who was given a test set alone: all there is.
            self.notices.append(
                f"{some([file.name for file in files], 2)}: called a test part, and there is no "
                "other: used as images without a split"
            )
            files = [file.without_part() for file in files]
        self._tables = [open_table(file, columns) for file in files]
        unsplit = [table.file.name for table in self._tables if table.file.part is None]
        if unsplit and len(unsplit) < len(self._tables):
            self.problems.append(
                "data.path: some names of files tell their part (train, validation, test) and "
                f"these do not: {some(unsplit)}"
            )
        self.classes = self._merge_classes()
        index = {name: number for number, name in enumerate(self.classes)}
        self._rows: list[tuple[int, int]] = []
        for number, table in enumerate(self._tables):
            self._list(number, table, index)
        self._note_unlabelled()

    def _list(self, number: int, table: LabelledTable, index: dict[str, int]) -> None:
        outside: list[str] = []
        for row, value in enumerate(table.labels):
            if value is None:
                self.left_out[_unlabelled(table)] += 1
                continue
            label = self._label(table, value, index)
            if label is None:
                outside.append(f"row {row} ({value!r})")
                continue
            self.samples.append(
                Sample(
                    label,
                    table.file.part,
                    table.where(row),
                    table.stamp_of(row),
                    table.groups[row] if table.groups else None,
                )
            )
            self._rows.append((number, row))
        if outside:
            self.problems.append(
                f"{table.file.name}: labels outside the {len(self.classes)} classes: "
                f"{some(outside)}"
            )

    def _note_unlabelled(self) -> None:
        """Says which parts have files, and no labels."""
        rows: Counter[str | None] = Counter()
        for table in self._tables:
            rows[table.file.part] += len(table.labels)
        kept = {sample.part for sample in self.samples}
        for part, count in rows.items():
            if part is not None and count and part not in kept:
                self.notices.append(
                    f"no row of the {part} part has a label: there is no {part} part, and one is "
                    "taken from the rest where it is needed"
                )

    def _merge_classes(self) -> list[str]:
        named = [table for table in self._tables if table.classes is not None]
        if named:
            first = named[0]
            assert first.classes is not None
            for table in named[1:]:
                if table.classes != first.classes:
                    self.problems.append(
                        f"{table.file.name}: its class names differ from those of {first.file.name}"
                    )
            return first.classes
        # Labels that only validation or test files have are outside the list.
        training = [
            table for table in self._tables if self._scoring or table.file.part in (None, "train")
        ]
        values = {
            value
            for table in training or self._tables
            for value in table.labels
            if value is not None
        }
        ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
        return [str(value) for value in ordered]

    def _label(self, table: LabelledTable, value: int | str, index: dict[str, int]) -> int | None:
        if table.classes is not None and not isinstance(value, str):
            return value if 0 <= value < len(self.classes) else None
        return index.get(str(value))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Reads the rows in the order of the files, a few at a time."""
        wanted: dict[int, dict[int, int]] = {}
        for position in positions:
            number, row = self._rows[int(position)]
            wanted.setdefault(number, {})[row] = int(position)
        for number in sorted(wanted):
            yield from _read(self._tables[number], wanted[number])


def _read(table: LabelledTable, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
    with pq.ParquetFile(table.file.local) as file:
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if any(row in rows for row in range(start, start + count)):
                row = start
                for batch in file.iter_batches(
                    _ROWS_AT_ONCE, row_groups=[group], columns=[table.image]
                ):
                    column = batch.column(0)
                    if pa.types.is_struct(column.type):
                        column = column.field("bytes")
                    for value in column:
                        if row in rows:
                            content = value.as_py()
                            yield rows[row], functools.partial(_content, content, table, row)
                        row += 1
            start += count


def _content(value: bytes | None, table: LabelledTable, row: int) -> bytes:
    if value is not None:
        return value
    name, file = table.names[row], table.beside(row)
    if file is not None:
        return file.read_bytes()
    if name:
        raise ValueError(f"the row has no image bytes, and its file {name} is not there")
    raise ValueError("the row has no image bytes")


def _unlabelled(table: LabelledTable) -> str:
    part = table.file.part
    return "without a label" + (f" ({part} part)" if part else "")
