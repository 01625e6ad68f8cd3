"""Wrong test images for the Model tab: rows of the table, the most confident answers first."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.model import class_names

# Bounds the size of the page; evidence.json lists more.
MOST_ROWS = 500


@dataclass(frozen=True)
class WrongRow:
    """Holds one wrong answer."""

    path: str
    label: str
    predicted: str
    confidence: float
    probability: float


@dataclass(frozen=True)
class WrongImages:
    """Holds the wrong answers of the table, how many evidence.json has, and how many there are."""

    rows: list[WrongRow]
    count: int
    stored: int


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
    return WrongImages(rows, int(found["count"]), len(found["images"]))
