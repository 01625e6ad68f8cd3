"""Memory that this process has freed: kept for what follows, or given back to the system.

By default glibc maps every large tensor anew and unmaps it when it is freed. The system then fills
each page with zeros when it is first touched: thousands of pages in a training step on the CPU
(`benchmarks/heap.py`).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# The largest value that older versions of glibc accept is 32 MiB.
_LARGEST = (2**31 - 1, 32 * 2**20)
_STEP = 64 * 2**20


def keep_freed() -> None:
    """Keeps freed memory in this process, so that the next tensor of a training takes it.

    The process grows to the most that it needed at one time, until `give_back`. Where the C library
    is not glibc, nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, -1)  # never by itself
        mallopt(_TOP_PAD, _STEP)
        for size in _LARGEST:
            if mallopt(_MMAP_THRESHOLD, size):
                break


def give_back(*, collect: bool = True) -> None:
    """Gives freed memory back, also what lies below used blocks.

    Args:
        collect: Whether Python's garbage is freed first, which takes some tenths of a second.

    Where the C library is not glibc, nothing is given back.
    """
    if collect:
        gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
