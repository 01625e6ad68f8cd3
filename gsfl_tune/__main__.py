"""``python -m gsfl_tune``, and ``gsfl-tune``."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from gsfl_tune.cli import main


def run() -> None:
    """Runs one command and ends the process with its exit code."""
    codes: list[int] = []
    # The first callback is called last, after those of libraries.
    atexit.register(_leave, codes)
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    """Ends the process at once if the command came to its end.

    Python would free every object first: with PyTorch that takes seconds without a word, and ten on
    a busy machine.
    """
    if not codes:
        return  # an error or a wrong argument: the code is Python's
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(codes[0])


if __name__ == "__main__":
    run()
