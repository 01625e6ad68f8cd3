from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from gsfl_tune.serve.batcher import Batcher


def run(coroutine):
    return asyncio.run(coroutine)


def test_items_gather_while_the_model_works_and_come_back_to_their_owners():
    sizes: list[int] = []
    working, go_on = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(sizes) == 1:
            working.set()
            go_on.wait(30)
        return [item * item for item in items]

    async def scenario() -> list[int]:
        batcher: Batcher[int, int] = Batcher(work, most=8, wait=0.0)
        batcher.start()
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.to_thread(working.wait, 30)
        rest = [asyncio.create_task(batcher.submit(number)) for number in range(2, 14)]
        # Called by the loop after the first step of each task, which puts its item into the queue.
        asyncio.get_running_loop().call_soon(go_on.set)
        results = await asyncio.gather(first, *rest)
        await batcher.stop()
        return results

    assert run(scenario()) == [number * number for number in range(1, 14)]
    assert sizes[0] == 1
    assert max(sizes) == 8
    assert sum(sizes) == 13


def test_a_failure_is_told_to_all_of_its_batch_and_to_no_other():
    def work(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise RuntimeError("no memory")
        return list(items)

    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(work, most=2, wait=0.2)
        batcher.start()
        bad = await asyncio.gather(batcher.submit(13), batcher.submit(1), return_exceptions=True)
        assert all(isinstance(each, RuntimeError) for each in bad)
        assert await batcher.submit(2) == 2
        await batcher.stop()

    run(scenario())


def test_nobody_waits_for_ever_at_the_end():
    working, go_on = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> list[int]:
        working.set()
        go_on.wait(30)
        return list(items)

    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(work, most=1, wait=0.0)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        await asyncio.to_thread(working.wait, 30)
        # Called by the loop when `stop` waits.
        asyncio.get_running_loop().call_soon(go_on.set)
        await batcher.stop()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 0
        assert all(isinstance(each, asyncio.CancelledError) for each in results[1:])

    run(scenario())
