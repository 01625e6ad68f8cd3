"""Small copies of the wrong test images that the report lists, and of training images near them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gsfl_tune.data import Dataset, DecodedImages
from gsfl_tune.evidence.nearest import Nearest
from gsfl_tune.evidence.pictures import jpeg
from gsfl_tune.run import write_bytes

# Rows of the report's table, which bounds the size of the page; evidence.json lists more.
MOST_PICTURED = 500
SHEET, NEAREST = "wrong-all.jpg", "wrong-nearest.jpg"
_SIDE, _COLUMNS = 64, 25
# There may be two training images for each wrong one.
_MOST_BYTES, _MOST_BYTES_NEAREST = 500_000, 900_000
# Decoded images are larger than the network's input: few at a time are held.
_AT_ONCE = 64

Positions = NDArray[np.int64]


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
    return _drawn(folder / SHEET, images, asked, _MOST_BYTES)


def nearest_sheet(
    folder: Path, dataset: Dataset, wrong: Sequence[dict[str, Any]], nearest: Nearest
) -> dict[str, Any] | None:
    """Draws the training images that are nearest to wrong test images, each of them once.

    Args:
        folder: ``RUN/evidence``.
        dataset: The images.
        wrong: ``images`` of `wrong_answers`.
        nearest: Training images for the first of these.

    Returns:
        ``file``, ``columns`` and ``count`` as of `wrong_sheet`. ``paths`` names the images of the
        cells. ``predicted`` and ``true`` have the number of a cell for each wrong image, or None.
        ``compared`` tells for each class of how many images (``among``, of ``all``) the nearest
        is. None if nothing is wrong.
    """
    count = min(len(wrong), MOST_PICTURED)
    both = np.stack([nearest.predicted[:count], nearest.true[:count]])
    shown = np.unique(both[both >= 0])
    drawn = _drawn(folder / NEAREST, dataset.pool, shown, _MOST_BYTES_NEAREST)
    if drawn is None:
        return None
    cells = {place: cell for cell, place in enumerate(shown.tolist())}
    predicted, true = ([cells.get(place) for place in row] for row in both.tolist())
    return drawn | {
        # Two parts tell images apart; the rest is a folder of the training's machine.
        "paths": ["/".join(dataset.pool.paths[place].split("/")[-2:]) for place in shown.tolist()],
        "predicted": predicted,
        "true": true,
        "compared": [
            {"label": label, "among": among, "all": there}
            for label, (among, there) in sorted(nearest.compared.items())
        ],
    }


def _drawn(path: Path, images: DecodedImages, asked: Positions, most: int) -> dict[str, Any] | None:
    """Draws images side by side, in a JPEG file of at most so many bytes."""
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
    write_bytes(path, jpeg(sheet, most))
    return {"file": f"{path.parent.name}/{path.name}", "columns": columns, "count": len(asked)}
