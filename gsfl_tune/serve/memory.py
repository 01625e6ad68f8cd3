"""Memory that a process has freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Gives freed memory back; of use once, after a start that needed more than what follows.

    The C library keeps freed blocks that lie below used ones. Where it is not glibc, nothing
    happens.
    """
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
