"""Runs an iterator ahead in its own thread."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# Items that wait for the consumer.
_AHEAD = 2


def prefetch(produce: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Runs an iterator in a background thread, a few items ahead.

    An exception of the thread is raised where the items are consumed. The thread ends when the
    iterator is exhausted, closed or deleted.

    Args:
        produce: Makes the iterator; called in the thread.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(_AHEAD)
    abandoned = threading.Event()

    def offer(kind: str, value: object) -> bool:
        while not abandoned.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in produce():
                if not offer("item", item):
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        abandoned.set()
        # Wake a producer that waits for room, then wait for it, as its input may be closed next.
        while not ready.empty():
            ready.get_nowait()
        # At exit daemon threads are stopped and cannot be joined.
        if not sys.is_finalizing():
            thread.join()
