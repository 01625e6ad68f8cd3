"""Photographs that several steps share: rendered once, 400 x 534 px JPEG files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from loader import write_photographs

from benchmarks.gpu.size import Size


def photographs(size: Size, count: int) -> Path:
    """A folder of rendered photographs, one folder a class.

    Args:
        size: Where they go; another step may have written them.
        count: How many.
    """
    folder = size.folder / f"photographs-{count}"
    if not folder.exists():
        part = size.folder / f"photographs-{count}.{os.getpid()}"
        write_photographs(part, count, classes=size.of(21, 8))
        with suppress(OSError):  # in a smoke run another step may have been faster
            part.rename(folder)
    return folder
