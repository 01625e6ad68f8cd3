"""Wrong test images for the Model tab: rows of the table, the most confident answers first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.model import class_names
from gsfl_tune.report.pictures import picture_url

# Side of a cell on the page, as in report.css.
CELL = 3.5


@dataclass(frozen=True)
class NearImage:
    """Holds the training image of a class that is nearest to a wrong image.

    Attributes:
        position: CSS position of its cell.
        file: Its file name.
        told: Its path, and among how many images it is the nearest.
    """

    position: str
    file: str
    told: str


@dataclass(frozen=True)
class WrongRow:
    """Holds one wrong answer, and the nearest training images of both classes if they are known."""

    path: str
    label: str
    predicted: str
    confidence: float
    probability: float
    near_label: NearImage | None = None
    near_predicted: NearImage | None = None


@dataclass(frozen=True)
class WrongSheet:
    """Holds small images of the table, side by side in one picture.

    Attributes:
        source: ``data:`` URL.
        columns: Cells of a line; all cells are squares of one size.
        count: Number of images; the first rows of the table have one.
    """

    source: str
    columns: int
    count: int

    def position(self, number: int) -> str | None:
        """Returns the CSS position of an image's cell; None if the sheet ends before it."""
        if number >= self.count:
            return None
        row, column = divmod(number, self.columns)
        return f"{-column * CELL:g}rem {-row * CELL:g}rem"


@dataclass(frozen=True)
class WrongImages:
    """Holds the wrong answers of the table.

    Attributes:
        rows: The most confident ones, as many as evidence.json has.
        count: How many there are.
        sheet: Small copies of the rows.
        near_sheet: Small copies of training images near them.
        lacks_near: Why there are none.
    """

    rows: list[WrongRow]
    count: int
    sheet: WrongSheet | None = None
    near_sheet: WrongSheet | None = None
    lacks_near: str = ""


def wrong_images(files: RunFiles) -> WrongImages | None:
    """Returns the wrong test images of the first seed; None if the evidence has none."""
    found, _ = files.part("wrong_images")
    if found is None:
        return None
    names = class_names(files)
    near, reason = files.part("wrong_nearest")
    near_sheet = None if near is None else _sheet(files, near)
    if near is not None and near_sheet is None:
        reason = f"{near['file']} is gone or not a picture."

    def name(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    def nearest(key: str, number: int, label: int) -> NearImage | None:
        return None if near_sheet is None else _nearest(near, near_sheet, key, number, label)

    rows = [
        WrongRow(
            str(each["path"]),
            name(each["label"]),
            name(each["predicted"]),
            float(each["confidence"]),
            float(each["probability"]),
            nearest("true", number, each["label"]),
            nearest("predicted", number, each["predicted"]),
        )
        for number, each in enumerate(found["images"])
    ]
    # In runs of an older version there are no small copies.
    sheet, _ = files.part("wrong_sheet")
    return WrongImages(
        rows,
        int(found["count"]),
        None if sheet is None else _sheet(files, sheet),
        near_sheet,
        reason,
    )


def _sheet(files: RunFiles, found: Mapping[str, Any]) -> WrongSheet | None:
    """Returns a sheet of small images; None without the file."""
    source = picture_url(files.run.path, str(found["file"]))
    if source is None:
        return None
    return WrongSheet(source, int(found["columns"]), int(found["count"]))


def _nearest(
    near: Mapping[str, Any], sheet: WrongSheet, key: str, number: int, label: int
) -> NearImage | None:
    cells = near[key]
    cell = cells[number] if number < len(cells) else None
    position = None if cell is None else sheet.position(int(cell))
    if position is None:
        return None
    path = str(near["paths"][cell])
    among = next((each for each in near["compared"] if each["label"] == label), None)
    told = "nearest training image"
    if among is not None:
        some = "all" if among["among"] == among["all"] else f"{among['among']:,} of the"
        told = f"nearest of {some} {among['all']:,} training images"
    return NearImage(position, path.split("/")[-1], f"{path}: {told}")
