"""Batching of images from different requests into one forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items while the model works, and passes them to it together.

    If the model is idle, an item waits `wait` seconds for others. While the model works, items
    collect without waiting. The number of items is not limited here, see `Admission`.

    Args:
        work: Called in a thread with up to `most` items; returns a result for each.
        most: Largest number of items per call.
        wait: Seconds to wait for more items.
        at_once: Number of concurrent calls.
        begin: Called first in every thread of `work`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        wait: float,
        at_once: int = 1,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._most = most
        self._wait = wait
        self._idle = asyncio.Semaphore(at_once)
        self._pool = ThreadPoolExecutor(at_once, "model", begin)
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        self._collector: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts collecting in the running event loop."""
        self._collector = asyncio.create_task(self._collect())

    async def stop(self) -> None:
        """Stops; items that still wait are cancelled."""
        if self._collector is not None:
            self._collector.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()[1].cancel()
        self._pool.shutdown()

    async def submit(self, item: Item) -> Result:
        """Returns the result of one item.

        Raises:
            Exception: The error of the call that contained this item.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return await future

    async def _collect(self) -> None:
        while True:
            await self._idle.acquire()
            batch = [await self._queue.get()]
            try:
                async with asyncio.timeout(self._wait):
                    while len(batch) < self._most:
                        batch.append(await self._queue.get())
            except TimeoutError:
                while len(batch) < self._most and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
            # Items of clients that have disconnected need no answer.
            batch = [(item, future) for item, future in batch if not future.done()]
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            if not batch:
                return
            items = [item for item, _ in batch]
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._pool, self._work, items)
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:  # every item gets the error; the server continues
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._idle.release()
