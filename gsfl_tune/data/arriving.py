"""Divides what arrives over time, so that nobody waits for an answer to what is there already."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from threading import Thread
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

# Seconds that a run waits in all for further items: little for a person, and enough for a producer
# that is only out of step, so that its items are not answered one by one.
_PATIENCE = 0.1
# Items that are held before somebody takes them.
_AHEAD = 4096


class _End(NamedTuple):
    error: BaseException | None


def as_they_come(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Yields runs of items, in order: a run ends where the next item has not come yet.

    Args:
        items: Iterated in another thread, so it may wait as long as it likes.

    Yields:
        Runs of items that can be had (almost) without waiting, the last one perhaps empty. The
        caller uses up each run before it asks for the next; items of a run that it leaves may be
        lost.

    Raises:
        BaseException: What the iteration of `items` raises, after the items before it.
    """
    arrived: Queue[tuple[Item] | _End] = Queue(_AHEAD)
    ended: list[_End] = []

    def draw() -> None:
        try:
            for item in items:
                arrived.put((item,))
        except BaseException as error:
            arrived.put(_End(error))
        else:
            arrived.put(_End(None))

    def run(found: tuple[Item] | _End) -> Iterator[Item]:
        left = _PATIENCE
        while not isinstance(found, _End):
            yield found[0]
            begun = time.monotonic()
            try:
                found = arrived.get(timeout=max(left, 0.0))
            except Empty:
                return
            left -= time.monotonic() - begun
        ended.append(found)

    # A daemon: the producer may never come to an end, and this process may.
    Thread(target=draw, name="arriving", daemon=True).start()
    while not ended:
        yield run(arrived.get())
    if ended[0].error is not None:
        raise ended[0].error
