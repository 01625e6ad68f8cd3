"""Small images whose class is the look of a small mark at a random place, with its annotation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gsfl_tune.data.image_file import square_side
from gsfl_tune.training import Workspace

SIZE, MARK = 64, 16


def draw(folder: Path, count: int = 160) -> Path:
    """Writes images and a table with the place of the mark; a tenth of the marks has none."""
    folder.mkdir(parents=True, exist_ok=True)
    random, side = np.random.default_rng(0), square_side(SIZE)
    rows = ["file,label,mark_x,mark_y"]
    for number in range(count):
        label = number % 2
        pixels = random.integers(60, 120, (side, side, 3))
        left, top = random.integers(8, side - MARK - 8, 2).tolist()
        mark = np.full((MARK, MARK, 3), 240)
        # Stripes that stand or lie: the mean of both is the same.
        stripes = np.arange(MARK) // 4 % 2 == 0
        mark[stripes if label else slice(None), slice(None) if label else stripes] = 10
        pixels[top : top + MARK, left : left + MARK] = mark
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        at = f"{left + MARK / 2},{top + MARK / 2}" if number % 10 else ","
        rows.append(f"{number}.png,{'ab'[label]},{at}")
    table = folder / "images.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def data_of(table: Path) -> dict[str, object]:
    """Returns the section ``data`` for these images."""
    return {
        "source": "csv",
        "path": str(table),
        "image_size": SIZE,
        "point_columns": ["mark"],
        "augment": {"flip": True, "scale": 0.7},
        "split": {"validation": 0.25, "test": 0.25},
    }


def workspace_of(config, cache: Path) -> Workspace:
    return Workspace.open(config.data, cache_dir=cache, device=torch.device("cpu"))
