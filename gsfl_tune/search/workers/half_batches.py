"""Training that runs out of memory, and goes on with half the batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from gsfl_tune.search.workers.workspaces import free_devices
from gsfl_tune.training.out_of_memory import HALVED, STILL_TOO_MUCH, free_memory, out_of_memory

T = TypeVar("T")


class TooLarge(Exception):
    """Raised when half the batch does not fit the memory either; the message says so."""


def with_half_batches(
    attempt: Callable[[int], T],
    pieces: int,
    *,
    release: Callable[[], None] = lambda: None,
) -> tuple[T, int]:
    """Runs an attempt; where memory runs out, runs it again with half the batch.

    Args:
        attempt: Trains from its checkpoint; takes the number of parts of a batch.
        pieces: The number of parts to begin with.
        release: Lets go of the model of the attempt that failed. The disk may refuse it.

    Returns:
        The attempt's result, and the number of parts that it ran with.

    Raises:
        TooLarge: When memory ran out with half the batch.
    """
    try:
        return attempt(pieces), pieces
    except Exception as error:
        complaint = out_of_memory(error)
        if complaint is None:
            raise
    # Only here has the error released the memory that it referenced.
    with suppress(OSError):
        release()
    free_devices()
    free_memory()
    if pieces > 1:
        raise TooLarge(f"{STILL_TOO_MUCH}: {complaint}")
    return with_half_batches(attempt, HALVED, release=release)
