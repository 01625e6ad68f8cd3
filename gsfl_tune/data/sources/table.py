"""Text tables with a row per image: CSV, JSON lines, a JSON list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._base import FileSource, Part, expand, some, without_label
from gsfl_tune.data.sources._columns import Given, Roles, described, find_roles
from gsfl_tune.data.sources._described import Description, find_descriptions, is_csv, is_jsonl
from gsfl_tune.data.sources._labels import (
    Label,
    Odd,
    Several,
    attribute_of,
    box_of,
    degenerate,
    label_of,
    point_of,
    whole_numbers,
)
from gsfl_tune.data.sources._locate import Locator, NotFound, Stamp
from gsfl_tune.data.sources._row_parts import counts_of, is_part, part_of_folders, told_part
from gsfl_tune.data.sources._rows import Rows, read_rows
from gsfl_tune.experiment.errors import UserError

WHAT = {
    "csv": "tables of images (.csv, .tsv)",
    "jsonl": "tables of images (.jsonl, .ndjson, or .json with a list)",
}


@dataclass(frozen=True)
class _Table:
    description: Description
    rows: Rows
    roles: Roles

    @property
    def name(self) -> str:
        return self.rows.name

    def part_of(self, row: int) -> Part | None:
        if self.roles.split is None:
            return self.description.part
        cell = self.rows.values[self.roles.split][row]
        return None if cell is None else told_part(str(cell).strip())


@dataclass(frozen=True, slots=True)
class _Entry:
    """Holds a row that has a file and a label."""

    table: _Table
    row: int
    file: Path
    stamp: Stamp | None
    label: Label
    part: Part | None
    box: Box | None

    @property
    def group(self) -> str | None:
        column = self.table.roles.group
        value = None if column is None else self.table.rows.values[column][self.row]
        return None if value in (None, "") else str(value)

    @property
    def name(self) -> str:
        return f"{self.file}#{self.table.rows.lines[self.row]}"


class TextTableSource(FileSource):
    """Reads tables with one row per image: a file (path, name or id) and a label.

    Columns are found by name. Known are tables of Kaggle, of the ``imagefolder`` of the `datasets`
    library (``metadata.csv``), of Label Studio (CSV, JSON-MIN) and of Roboflow (``_classes.csv``,
    one-hot). Rows without a file name, without a label or with several are left out and counted.
    Missing files are found broken when they are read. Parts come from a column, else from the name
    of the table or its folder, else from folders in the paths of its rows.

    Args:
        path: A table, a folder with tables, or a list of these.
        kind: ``csv`` or ``jsonl``: which tables of a folder are meant.
        given: Names of columns.
        root: Folder that relative paths start from; default: found beside each table.
        crop: Whether each box is a sample; else each file is one.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If there is no table, or it lacks columns of files and labels.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        kind: Literal["csv", "jsonl"],
        *,
        given: Given | None = None,
        root: str | None = None,
        crop: bool = False,
        scoring: bool = False,
    ) -> None:
        super().__init__()
        self.kind = "row"
        self._listed: list[_Entry] = []
        self._root = None if root is None else Path(expand(root))
        if self._root is not None and not self._root.is_dir():
            raise UserError(f"data.root: {root} is not a folder")
        unread = Counter[str]()
        suits = is_csv if kind == "csv" else is_jsonl
        files = find_descriptions(path, suits, WHAT[kind], unread)
        self.note_unread(unread)
        self._given = given or Given()
        tables = self._choose([self._open(file, self._given) for file in files])
        labels = self._labels(tables)
        entries = [
            entry
            for table, found in zip(tables, labels, strict=True)
            for entry in self._entries(table, found)
        ]
        if {entry.part for entry in entries} == {"test"} and not scoring:
            self.notices.append(
                f"{some([table.name for table in tables], 2)}: called a test part, and there is no "
                "other: used as images without a split"
            )
            entries = [replace(entry, part=None) for entry in entries]
        self._note_unlabelled(tables, labels)
        self.classes = _classes(entries, scoring)
        boxed = crop and any(entry.box is not None for entry in entries)
        self._list(self._with_boxes(entries) if boxed else self._one_a_file(entries), boxed)

    def annotations(self) -> Annotations:
        """Returns boxes, and the values of ``data.point_columns`` and ``data.attribute_columns``.

        Raises:
            UserError: If a cell cannot be read.
        """
        parts, attributes = self._given.points, self._given.attributes
        points = np.full((len(self._listed), len(parts), 2), np.nan, dtype=np.float32)
        values = np.full((len(self._listed), len(attributes)), np.nan, dtype=np.float32)
        odd: list[str] = []
        for place, entry in enumerate(self._listed):
            rows, roles, row = entry.table.rows, entry.table.roles, entry.row
            try:
                for part, columns in enumerate(roles.points):
                    points[place, part] = point_of(rows, columns, row) or (np.nan, np.nan)
                for column, name in enumerate(roles.attributes):
                    values[place, column] = attribute_of(rows, name, row)
            except Odd as error:
                odd.append(f"{rows.where(row)}: {error}")
        if odd:
            more = [f"and {len(odd) - 5:,} more rows like these"] if len(odd) > 5 else []
            raise UserError("\n".join([*odd[:5], *more]))
        return Annotations.of(
            [sample.box for sample in self.samples],
            points=points,
            part_names=parts,
            attributes=values,
            attribute_names=attributes,
        )

    def _open(self, file: Description, given: Given) -> _Table | UserError:
        """Opens a table; returns errors for files of a folder, which `_choose` judges."""
        try:
            rows = read_rows(file.file)
            return _Table(file, rows, find_roles(rows, given))
        except UserError as error:
            if file.named:
                raise
            return error

    def _choose(self, found: Sequence[_Table | UserError]) -> list[_Table]:
        """Chooses the tables to read.

        Raises:
            UserError: If there is none with labels, or it is not clear which are meant.
        """
        tables = [table for table in found if isinstance(table, _Table)]
        errors = [str(error) for error in found if isinstance(error, UserError)]
        if not any(table.roles.labelled for table in tables):
            lines = [
                f"{table.name}: expected a column of labels (such as label or class), found "
                f"{described(table.rows)}; data.label_column names it"
                for table in tables
            ]
            raise UserError("\n".join([*errors, *lines]))
        self.notices += [f"not read: {error}" for error in errors]
        loose = [t for t in tables if t.description.part is None and t.roles.split is None]
        named = [t for t in loose if t.description.named]
        if len(loose) < len(tables):
            if named:
                self.problems.append(
                    "data.path: some tables tell their part (train, validation, test) and these "
                    f"do not: {some([table.name for table in named])}"
                )
            self.notices += [
                f"not read: {table.name}: its name tells no part, as those beside it do"
                for table in loose
                if not table.description.named
            ]
            tables = [table for table in tables if table not in loose or table in named]
        elif len(loose) - len(named) > 1:
            raise UserError(
                f"data.path: several tables, and no name tells a part: "
                f"{some([table.name for table in loose])}; name the one that is meant"
            )
        for table in tables:
            self.problems += table.rows.problems
            self.notices += table.roles.notices
        return tables

    def _labels(self, tables: Sequence[_Table]) -> list[list[Label | None]]:
        """Labels of all rows; what is left out has none."""
        found: list[list[Label | None]] = []
        for table in tables:
            labels: list[Label | None] = []
            odd: list[str] = []
            for row in range(len(table.rows)):
                label = None
                try:
                    if table.roles.labelled:
                        label = label_of(table.rows, table.roles, row)
                    if label is None:
                        self.left_out[without_label(table.part_of(row))] += 1
                except Several:
                    self.left_out["with several labels"] += 1
                except Odd as error:
                    odd.append(f"{table.rows.where(row)}: {error}")
                labels.append(label)
            self._add_problems(odd)
            found.append(labels)
        every = whole_numbers([label for labels in found for label in labels])
        start, whole = 0, []
        for table, labels in zip(tables, found, strict=True):
            whole.append(every[start : start + len(labels)])
            start += len(labels)
            for row, (before, label) in enumerate(zip(labels, whole[-1], strict=True)):
                if before is not None and label is None:
                    self.left_out[without_label(table.part_of(row))] += 1
        return whole

    def _entries(self, table: _Table, labels: Sequence[Label | None]) -> list[_Entry]:
        """Returns rows that have a label and the name of a file."""
        rows, roles = table.rows, table.roles
        names = ["" if v is None else str(v).strip() for v in rows.values[roles.image]]
        parts = self._parts(table, names, labels)
        part = table.description.part
        locator = Locator(table.description.file.parent, self._root, part, filter(None, names))
        entries: list[_Entry] = []
        odd: list[str] = []
        for row, label in enumerate(labels):
            if label is None:
                continue
            if not names[row]:
                self.left_out["without a file name"] += 1
                continue
            try:
                file, stamp = locator.find(names[row], parts[row])
                box = box_of(rows, roles, row) if roles.boxes else None
            except (NotFound, Odd) as error:
                odd.append(f"{rows.where(row)}: {error}")
                continue
            entries.append(_Entry(table, row, file, stamp, label, parts[row], box))
        self.notices += locator.told(table.name)
        self._add_problems(odd)
        boxes = [entry.box for entry in entries if entry.box is not None]
        if boxes and max(max(box) for box in boxes) <= 1:
            self.problems.append(
                f"{table.name}: found boxes in shares of the image (none exceeds 1), allowed pixels"
            )
        return entries

    def _parts(
        self, table: _Table, names: Sequence[str], labels: Sequence[Label | None]
    ) -> list[Part | None]:
        """Returns the part of every row."""
        count = len(table.rows)
        if table.roles.split is not None:
            cells = [
                "" if value is None else str(value).strip()
                for value in table.rows.values[table.roles.split]
            ]
            self._add_problems(
                [
                    f"{table.rows.where(row)}: found the part {cell!r}, allowed train, "
                    "validation, test, or nothing"
                    for row, cell in enumerate(cells)
                    if cell and not is_part(cell) and labels[row] is not None
                ]
            )
            return [told_part(cell) for cell in cells]
        if table.description.part is not None:
            return [table.description.part] * count
        found = [part_of_folders(name) for name in names]
        if found and all(found):
            self.notices.append(
                f"{table.name}: the folders of its paths tell the parts: {counts_of(found)}"
            )
            return found
        if any(found):
            told = sum(part is not None for part in found)
            self.notices.append(
                f"{table.name}: {told:,} of {count:,} paths lie in folders called for parts, the "
                "others do not: none is used as such"
            )
        return [None] * count

    def _add_problems(self, lines: Sequence[str]) -> None:
        """Adds a few problems of one kind, and the number of further ones."""
        self.problems += lines[:5]
        if len(lines) > 5:
            self.problems.append(f"and {len(lines) - 5:,} more rows like the one above")

    def _with_boxes(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Returns rows with a box, sorted by file, so that each file is read once."""
        order = {file: place for place, file in enumerate(dict.fromkeys(e.file for e in entries))}
        kept = []
        for entry in entries:
            if entry.box is None:
                self.left_out["without a box"] += 1
            elif degenerate(entry.box):
                self.left_out["with a box of less than a pixel"] += 1
            else:
                kept.append(entry)
        return sorted(kept, key=lambda entry: order[entry.file])

    def _one_a_file(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Returns the rows of files that have one label."""
        of_file: dict[tuple[Path, Part | None], list[_Entry]] = {}
        for entry in entries:
            of_file.setdefault((entry.file, entry.part), []).append(entry)
        kept = []
        for rows in of_file.values():
            if len({entry.label for entry in rows}) > 1:
                self.left_out["of files with several labels"] += len(rows)
                continue
            if len(rows) > 1:
                self.left_out["the same file and label again"] += len(rows) - 1
            kept.append(replace(rows[0], box=rows[0].box if len(rows) == 1 else None))
        return kept

    def _list(self, entries: Sequence[_Entry], boxed: bool) -> None:
        index = {name: label for label, name in enumerate(self.classes)}
        used: set[str] = set()
        outside: list[str] = []
        for entry in entries:
            label = index.get(str(entry.label))
            if label is None:
                outside.append(f"{entry.table.rows.where(entry.row)} ({entry.label!r})")
                continue
            name = str(entry.file)
            name = entry.name if boxed or name in used else name
            used.add(name)
            self._listed.append(entry)
            self.add(
                entry.file, label, entry.part, entry.stamp,
                box=entry.box, group=entry.group, name=name,
            )  # fmt: skip
        if outside:
            self.problems.append(
                f"labels outside the {len(self.classes)} classes of the training part: "
                f"{some(outside)}"
            )

    def _note_unlabelled(
        self, tables: Sequence[_Table], labels: Sequence[Sequence[Label | None]]
    ) -> None:
        """Notes parts that have tables but no labels."""
        for part in dict.fromkeys(table.description.part for table in tables):
            of_part = [
                found
                for table, found in zip(tables, labels, strict=True)
                if table.description.part == part and table.roles.split is None
            ]
            if part is None or not any(of_part) or any(x is not None for f in of_part for x in f):
                continue
            self.notices.append(
                f"no row of the {part} part has a label: there is no {part} part, and one is taken "
                "from the rest where it is needed"
            )


def _classes(entries: Sequence[_Entry], scoring: bool) -> list[str]:
    """Returns the classes of training rows, in the order of their numbers or names."""
    training = [entry for entry in entries if scoring or entry.part in (None, "train")]
    values = {entry.label for entry in training or entries}
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    return [str(value) for value in ordered]
