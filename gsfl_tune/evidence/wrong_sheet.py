"""One picture with a small copy of every wrong test image that the report lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gsfl_tune.data import DecodedImages
from gsfl_tune.evidence.pictures import jpeg
from gsfl_tune.run import write_bytes

# Rows of the report's table, which bounds the size of the page; evidence.json lists more.
MOST_PICTURED = 500
SHEET = "wrong-all.jpg"
_SIDE, _COLUMNS = 64, 25
_MOST_BYTES = 500_000
# Decoded images are larger than the network's input: few at a time are held.
_AT_ONCE = 64


def wrong_sheet(
    folder: Path, images: DecodedImages, wrong: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Draws the wrong test images side by side, in their order.

    Args:
        folder: ``RUN/evidence``.
        images: The test images.
        wrong: ``images`` of `wrong_answers`.

    Returns:
        ``file`` (relative to the run directory), ``columns`` and ``count``: image number n is in
        column n mod columns. All cells are squares of one size. None if nothing is wrong.
    """
    asked = np.array([each["image"] for each in wrong[:MOST_PICTURED]], dtype=np.int64)
    if not len(asked):
        return None
    columns = min(_COLUMNS, len(asked))
    rows = -(-len(asked) // columns)
    sheet = Image.new("RGB", (columns * _SIDE, rows * _SIDE), "white")
    for start in range(0, len(asked), _AT_ONCE):
        for number, square in enumerate(images.gather(asked[start : start + _AT_ONCE]), start):
            small = Image.fromarray(square).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            row, column = divmod(number, columns)
            sheet.paste(small, (column * _SIDE, row * _SIDE))
    write_bytes(folder / SHEET, jpeg(sheet, _MOST_BYTES))
    return {"file": f"{folder.name}/{SHEET}", "columns": columns, "count": len(asked)}
