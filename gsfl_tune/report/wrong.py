"""Wrong test images for the Model tab: rows of the table, the most confident answers first."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.model import class_names
from gsfl_tune.report.pictures import picture_url

# Bounds the size of the page; evidence.json lists more.
MOST_ROWS = 500
# Side of a cell on the page, as in report.css.
CELL = 3.5


@dataclass(frozen=True)
class WrongRow:
    """Holds one wrong answer."""

    path: str
    label: str
    predicted: str
    confidence: float
    probability: float


@dataclass(frozen=True)
class WrongSheet:
    """Holds small copies of the images of the table, side by side in one picture.

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
    """Holds the wrong answers of the table, how many evidence.json has, and how many there are."""

    rows: list[WrongRow]
    count: int
    stored: int
    sheet: WrongSheet | None = None


def wrong_images(files: RunFiles) -> WrongImages | None:
    """Returns the wrong test images of the first seed; None if the evidence has none."""
    found, _ = files.part("wrong_images")
    if found is None:
        return None
    names = class_names(files)

    def name(label: int) -> str:
        return names[label] if label < len(names) else f"class {label}"

    rows = [
        WrongRow(
            str(each["path"]),
            name(each["label"]),
            name(each["predicted"]),
            float(each["confidence"]),
            float(each["probability"]),
        )
        for each in found["images"][:MOST_ROWS]
    ]
    return WrongImages(rows, int(found["count"]), len(found["images"]), _sheet(files))


def _sheet(files: RunFiles) -> WrongSheet | None:
    """Returns the small copies; None in runs of an older version, or without the file."""
    found, _ = files.part("wrong_sheet")
    if found is None:
        return None
    source = picture_url(files.run.path, str(found["file"]))
    if source is None:
        return None
    return WrongSheet(source, int(found["columns"]), int(found["count"]))
