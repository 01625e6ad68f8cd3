"""Draws a few images of each class with its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gsfl_tune.data.dataset import Dataset

_THUMBNAIL = 96
_GAP = 4
_TITLE = 18
_MOST_CLASSES = 120
_WIDTH = 1600


def contact_sheet(
    dataset: Dataset, *, images_per_class: int = 4, classes: Sequence[int] | None = None
) -> tuple[Image.Image, int]:
    """Draws training images in their decoded form.

    Args:
        dataset: The images.
        images_per_class: Images per class, spread evenly over the class.
        classes: Which classes, by number; default: all of them.

    Returns:
        The sheet, RGB, and the number of classes on it. Of more than 120 classes, 120 are shown,
        spread evenly over the list.
    """
    listed = np.arange(dataset.class_count) if classes is None else np.asarray(classes)
    count = min(len(listed), _MOST_CLASSES)
    shown = listed[np.unique(np.linspace(0, len(listed) - 1, count).round().astype(int))]
    cell_width = images_per_class * (_THUMBNAIL + _GAP) + 3 * _GAP
    cell_height = _TITLE + _THUMBNAIL + 3 * _GAP
    # About as many columns as fit the width, no more than the classes need.
    columns = max(1, min(_WIDTH // cell_width, math.ceil(math.sqrt(len(shown) / 2))))
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font()
    labels = dataset.pool.labels[dataset.train_index]
    for place, label in enumerate(shown.tolist()):
        left = _GAP + (place // rows) * cell_width
        top = _GAP + (place % rows) * cell_height
        width = images_per_class * (_THUMBNAIL + _GAP)
        draw.text((left, top), _shortened(dataset.classes[label], font, width), "black", font)
        members = dataset.train_index[labels == label]
        picked = np.unique(np.linspace(0, len(members) - 1, images_per_class).round().astype(int))
        for number, square in enumerate(dataset.pool.gather(members[picked])):
            thumbnail = Image.fromarray(square).resize(
                (_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS
            )
            sheet.paste(thumbnail, (left + number * (_THUMBNAIL + _GAP), top + _TITLE))
    return sheet, len(shown)


def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), 13)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
