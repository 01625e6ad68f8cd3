"""Base of sources that list their images in tables: meaning of labels, and parts."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from gsfl_tune.data.sources._base import Reader, Sample, Source, some, without_label
from gsfl_tune.data.sources._names import Part
from gsfl_tune.data.sources._spelling import respelled


@dataclass(frozen=True)
class LabelledTable:
    """Holds labels and image names of one file or folder, and reads images on demand.

    Attributes:
        name: Name for messages: its path or URL.
        part: The part in its name.
        labels: One per row; None if the row has none.
        names: Name of every image, if it has one.
        classes: Names of integer labels, if known.
        stamp: Size and time of change of the file with the images.
        folder: Folder of images for rows that name a file; None if all rows contain their image.
        groups: Group of every image, if the experiment names such a column.
        parts: Part of every image, if the rows tell it; this counts, and not `part`.
        notices: Messages about it that are not errors.
    """

    name: str
    part: Part | None
    labels: list[int | str | None]
    names: list[str | None]
    classes: list[str] | None
    stamp: tuple[int, int]
    folder: Path | None
    groups: list[str | None] | None = field(default=None, kw_only=True)
    parts: list[Part | None] | None = field(default=None, kw_only=True)
    notices: list[str] = field(default_factory=list, kw_only=True)

    def part_of(self, row: int) -> Part | None:
        """Returns the part of a row."""
        return self.part if self.parts is None else self.parts[row]

    @property
    def told(self) -> set[Part | None]:
        """Returns the parts of all rows."""
        return {self.part} if self.parts is None else set(self.parts)

    def where(self, row: int) -> str:
        """Returns the name of a row for messages."""
        name = self.names[row]
        return f"{self.name}#{row}" + (f" ({name})" if name else "")

    def beside(self, row: int) -> Path | None:
        """Returns the file that a row names; None if it does not exist."""
        name = self.names[row]
        if not name or self.folder is None:
            return None
        file = self.folder / name  # an absolute path is not changed
        if not file.is_file():
            other = respelled(str(file))
            return None if other is None else Path(other)
        return file

    def stamp_of(self, row: int) -> tuple[int, int] | None:
        """Returns size and time of change of the file with a row's image."""
        file = self.beside(row)
        if file is None:
            return self.stamp
        status = file.stat()
        # Both, as whether the row has bytes is unknown before it is read.
        return self.stamp[0] + status.st_size, max(self.stamp[1], status.st_mtime_ns)

    def content(self, value: bytes | None, row: int) -> bytes:
        """Returns the image of a row.

        Args:
            value: Value of the row.
            row: Number of the row.

        Raises:
            ValueError: If it has no image and its file does not exist.
        """
        if value is not None:
            return value
        name, file = self.names[row], self.beside(row)
        if file is not None:
            return file.read_bytes()
        if name:
            raise ValueError(f"the row has no image bytes, and its file {name} is not there")
        raise ValueError("the row has no image bytes")


Table = TypeVar("Table", bound=LabelledTable)


class TableSource(Source, Generic[Table]):
    """Lists the rows of tables, each with an image and a label.

    Integer labels are positions in the class names if there are any; otherwise a label's number is
    its name. Rows without a label are left out and counted.

    Args:
        tables: Tables in the order of their names.
        kind: Name of a row for messages.
        scoring: Whether classes are those of all parts, not only of the training part.
    """

    def __init__(
        self, tables: Sequence[Table], *, kind: str = "row", scoring: bool = False
    ) -> None:
        super().__init__()
        self.kind = kind
        self._scoring = scoring
        self.notices += [notice for table in tables for notice in table.notices]
        if {part for table in tables for part in table.told} == {"test"} and not scoring:
            # A test part alone is used as all images.
            self.notices.append(
                f"{some([table.name for table in tables], 2)}: called a test part, and there is no "
                "other: used as images without a split"
            )
            tables = [replace(table, part=None, parts=None) for table in tables]
        self._tables = list(tables)
        unsplit = [t.name for t in self._tables if t.part is None and t.parts is None]
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

    @abstractmethod
    def _read(self, table: Table, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        """Yields (position, reader) for rows of a table, given as row to position, ascending."""

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Reads the rows in the order of the tables."""
        wanted: dict[int, dict[int, int]] = {}
        for position in positions:
            number, row = self._rows[int(position)]
            wanted.setdefault(number, {})[row] = int(position)
        for number in sorted(wanted):
            yield from self._read(self._tables[number], wanted[number])

    def _list(self, number: int, table: Table, index: dict[str, int]) -> None:
        outside: list[str] = []
        for row, value in enumerate(table.labels):
            if value is None:
                self.left_out[without_label(table.part_of(row))] += 1
                continue
            label = self._label(table, value, index)
            if label is None:
                outside.append(f"{self.kind} {row} ({value!r})")
                continue
            group = table.groups[row] if table.groups else None
            where, stamp = table.where(row), table.stamp_of(row)
            self.samples.append(Sample(label, table.part_of(row), where, stamp, group))
            self._rows.append((number, row))
        if outside:
            self.problems.append(
                f"{table.name}: labels outside the {len(self.classes)} classes: {some(outside)}"
            )

    def _note_unlabelled(self) -> None:
        """Notes parts that have files but no labels."""
        rows: Counter[str | None] = Counter()
        for table in self._tables:
            rows.update(table.part_of(row) for row in range(len(table.labels)))
        kept = {sample.part for sample in self.samples}
        for part, count in rows.items():
            if part is not None and count and part not in kept:
                self.notices.append(
                    f"no {self.kind} of the {part} part has a label: there is no {part} part, and "
                    "one is taken from the rest where it is needed"
                )

    def _merge_classes(self) -> list[str]:
        named = [table for table in self._tables if table.classes is not None]
        if named:
            first = named[0]
            assert first.classes is not None
            for table in named[1:]:
                if table.classes != first.classes:
                    self.problems.append(
                        f"{table.name}: its class names differ from those of {first.name}"
                    )
            return first.classes
        # Labels only in validation or test files are outside the list.
        training = {None, "train"} & {part for table in self._tables for part in table.told}
        values = {
            value
            for table in self._tables
            for row, value in enumerate(table.labels)
            if value is not None
            and (self._scoring or not training or table.part_of(row) in training)
        }
        ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
        return [str(value) for value in ordered]

    def _label(self, table: Table, value: int | str, index: dict[str, int]) -> int | None:
        if table.classes is not None and not isinstance(value, str):
            return value if 0 <= value < len(self.classes) else None
        return index.get(str(value))
