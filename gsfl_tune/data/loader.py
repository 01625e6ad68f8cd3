"""Batches of decoded images, made in background threads while the consumer is busy.

On the CPU a few threads share the images of a batch, each of which goes from the memory map of the
cache to its place in the batch without the others. For a GPU a few threads copy batches from the
memory map to pinned memory; one thread uploads them, and the batch is changed on the GPU.
`view_batches` is for changes that are fixed image by image.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.augment import Augment
from gsfl_tune.data.batch import Batch, Targets
from gsfl_tune.data.batch_share import WHOLE_BATCH, BatchShare
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.data.prefetch import prefetch
from gsfl_tune.data.sampling import epoch_positions
from gsfl_tune.data.transforms import Streams

Drawn = TypeVar("Drawn")
# Positions of a batch, and what decides how they change in each of V views: (V, B, width).
Draw = tuple[np.ndarray, Tensor]

# Batches that are begun while the consumer is busy.
_AHEAD = 2
# Threads that copy to pinned memory, one batch each: one alone copies slower than a GPU changes.
_COPYING = 4
_starting = threading.Lock()


def epoch_order(
    index: np.ndarray, labels: np.ndarray, *, seed: int, epoch: int, balance: float = 0.0
) -> np.ndarray:
    """Draws positions in the order in which `epoch_batches` shows them, (N,) int64.

    Args:
        index: (N,) positions to train on.
        labels: Of all images.
        seed: Seed of the training.
        epoch: Which epoch.
        balance: See `epoch_positions`.
    """
    order_seed, _ = _seeds(seed, epoch)
    return epoch_positions(index, labels, _generator(order_seed), balance=balance)


def epoch_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    transform: Augment,
    device: torch.device | str,
    drop_last: bool = True,
    random: Tensor | None = None,
    threads: int | None = None,
    share: BatchShare = WHOLE_BATCH,
    balance: float = 0.0,
    views: int = 1,
    annotations: Annotations | None = None,
) -> Iterator[Batch]:
    """One epoch of training batches, in an order and with changes that (seed, epoch) determine.

    Args:
        images: Where the squares are.
        index: Positions in ``images`` to train on.
        batch_size: Images a batch.
        seed: Seed of the training.
        epoch: Which epoch.
        transform: How images change.
        device: Where batches go.
        drop_last: Leave out the last batch if it is not full. If there are fewer images than
            one batch holds, they make one batch all the same.
        random: Fixed changes instead of those of (seed, epoch), as of `view_batches`; then
            ``views`` is not used.
        threads: How many change images on the CPU; default: ``torch.get_num_threads()``, so
            that trials that share a machine do not take each other's cores. The images are the
            same for every number.
        share: Of every batch, the part that is given out. An image changes in the same way
            whoever gets it.
        balance: How far rare classes are shown as often as others, see `epoch_positions`.
        views: How often each image is in a batch, changed in another way each time. The first
            view is the same whatever the number.
        annotations: Of all ``images``, in pixels of the squares; batches then carry theirs.

    Yields:
        Views (B, 3, h, w) float32 in the channels_last memory format, labels (B,) int64 on the
        device, and positions in ``images`` on the CPU. The two devices agree to about one level
        of 255, see `Augment`.
    """
    shuffled = epoch_order(index, images.labels, seed=seed, epoch=epoch, balance=balance)
    stop = len(shuffled)
    if drop_last and stop >= batch_size:
        stop -= stop % batch_size
    if random is not None:
        return view_batches(
            images,
            shuffled[:stop],
            batch_size,
            random=random,
            transform=transform,
            device=device,
            threads=threads,
            share=share,
            annotations=annotations,
        )
    # Other streams than the order's, so that the order does not depend on what is drawn here.
    sources = [
        (_generator(_seeds(seed, epoch, *further)[1]), Streams(seed, epoch, *further))
        for further in ((), *((view,) for view in range(1, views)))
    ]

    def drawn() -> Iterator[Draw]:
        for positions in _parts(shuffled[:stop], batch_size):
            own = share.of(len(positions))
            rows = [transform.draw_rows(len(positions), *source)[own] for source in sources]
            yield positions[own], torch.stack(rows)

    return _augmented(images, drawn(), transform, torch.device(device), threads, annotations)


def view_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    random: Tensor,
    transform: Augment,
    device: torch.device | str,
    threads: int | None = None,
    share: BatchShare = WHOLE_BATCH,
    annotations: Annotations | None = None,
) -> Iterator[Batch]:
    """All images of ``index`` in its order, changed in a way that is given for every image.

    What an image becomes depends on its row alone, and not on its batch or on the order.

    Args:
        images: Where the squares are.
        index: Positions in ``images``, in the order wanted.
        batch_size: Images a batch; the last one may hold fewer.
        random: (len(images), n) as of `Augment.apply`: row i changes the image at position i.
            `Views.draw` is such a table, and so is a mixture of rows of several views. Or
            (V, len(images), n), for V views of each image in a batch.
        transform: How images change.
        device: Where batches go.
        threads: As of `epoch_batches`.
        share: As of `epoch_batches`.
        annotations: As of `epoch_batches`.

    Yields:
        As `epoch_batches`.

    Raises:
        ValueError: If the table has another number of rows than there are images.
    """
    tables = random if random.ndim == 3 else random[None]
    if tables.shape[1] != len(images):
        raise ValueError(f"random has {tables.shape[1]} rows, there are {len(images)} images")
    parts = _parts(np.ascontiguousarray(index, dtype=np.int64), batch_size)
    parts = [positions[share.of(len(positions))] for positions in parts]
    draws = ((positions, tables[:, torch.from_numpy(positions)]) for positions in parts)
    return _augmented(images, draws, transform, torch.device(device), threads, annotations)


def eval_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    transform: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> Iterator[Batch]:
    """All images of ``index`` in its order, in one view.

    Arguments and batches are those of `epoch_batches`.
    """
    parts = _parts(np.asarray(index, dtype=np.int64), batch_size)

    def batches() -> Iterator[Batch]:
        loaded = _loaded(images, ((positions, None) for positions in parts), torch.device(device))
        for squares, labels, positions, _ in loaded:
            with torch.no_grad():
                values = transform(squares)
            yield Batch((values,), Targets(labels), torch.from_numpy(positions))

    return prefetch(batches)


def _augmented(
    images: DecodedImages,
    draws: Iterator[Draw],
    transform: Augment,
    device: torch.device,
    threads: int | None,
    annotations: Annotations | None,
) -> Iterator[Batch]:
    def named(
        values: tuple[Tensor, ...], labels: Tensor, positions: np.ndarray, random: Tensor
    ) -> Batch:
        moved = None
        if annotations is not None:
            own = annotations.rows(positions)
            moved = tuple(
                own.moved(transform.matrices(rows, images.side).numpy()) for rows in random
            )
        return Batch(values, Targets(labels), torch.from_numpy(positions), moved)

    if device.type == "cpu":
        number = threads or torch.get_num_threads()
        return _in_threads(images, draws, transform, number, named)

    def batches() -> Iterator[Batch]:
        for squares, labels, positions, random in _loaded(images, draws, device):
            values = tuple(transform.apply(squares, rows) for rows in random)
            yield named(values, labels, positions, random)

    return prefetch(batches)


def _in_threads(
    images: DecodedImages,
    draws: Iterator[Draw],
    transform: Augment,
    threads: int,
    named: Callable[[tuple[Tensor, ...], Tensor, np.ndarray, Tensor], Batch],
) -> Iterator[Batch]:
    """`Augment` on the CPU: every thread takes a part of each batch, two batches ahead.

    An exception of a thread is raised where the batches are consumed. The threads end when the
    iterator is exhausted, closed or forgotten.
    """
    arrays = _ArrayPool((transform.size, transform.size, 3))

    def work(out: np.ndarray, positions: np.ndarray, random: Tensor) -> None:
        transform.fill(out, images.squares(positions), random)

    with _workers(threads) as pool:

        def start() -> Iterator[tuple[list[Future[None]], Batch]]:
            for positions, random in draws:
                views = len(random)
                out = arrays.take(views * len(positions))
                every, rows = np.tile(positions, views), random.flatten(0, 1)
                edges = np.linspace(0, len(out), min(threads, len(out)) + 1).astype(int).tolist()
                jobs = [
                    pool.submit(work, out[a:b], every[a:b], rows[a:b])
                    for a, b in itertools.pairwise(edges)
                ]
                # Not an inference tensor, whatever the caller is doing: it may train on it.
                with torch.inference_mode(False):
                    values = torch.from_numpy(out).permute(0, 3, 1, 2).chunk(views)
                    labels = torch.from_numpy(images.labels[positions])
                    batch = named(values, labels, positions, random)
                yield jobs, batch

        started = start()
        waiting = deque(itertools.islice(started, _AHEAD))
        while waiting:
            jobs, batch = waiting.popleft()
            for job in jobs:
                job.result()
            waiting.extend(itertools.islice(started, 1))
            yield batch
            # Until the next one is there, memory that is referred to cannot be used again.
            del batch


class _ArrayPool:
    """Arrays for batches, used again as soon as nothing refers to their last content.

    New memory of this size comes from the system and is cleared page by page when it is first
    written, which takes longer than to fill it with images.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[np.ndarray] = []

    def take(self, count: int) -> np.ndarray:
        """(count, *shape) float32 with any content."""
        # The callback of a garbage collection may append at any time; only this method pops.
        while self._free:
            array = self._free.pop()
            if len(array) >= count:
                break
        else:
            array = np.empty((count, *self._shape), dtype=np.float32)
        # Tensors and views of what is lent keep it alive, in Python and in autograd's graph.
        lent = array[:count]
        weakref.finalize(lent, self._free.append, array).atexit = False
        return lent


@contextmanager
def _workers(
    count: int, finalizing: Callable[[], bool] = sys.is_finalizing
) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch's operations do not start threads of their own."""
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # A pool whose initializer fails empties its queue, and with it the word to end: threads
        # that wait for work then wait for ever, and so does who waits for them.
        with suppress(threading.BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="prefetch", initializer=start)
    try:
        with _starting:
            before = torch.get_num_threads()
            for _ in range(count):
                pool.submit(int)  # starts a thread, as no other is idle yet
            ready.wait()
            # The setting is one of each thread, but also what threads start with later.
            torch.set_num_threads(before)
        yield pool
    except BaseException:
        ready.abort()  # else threads that did start would wait for the others
        raise
    finally:
        # An epoch that is left when the interpreter ends is closed after the modules that a
        # shutdown needs; the threads have ended by then.
        if not finalizing():
            pool.shutdown(wait=True, cancel_futures=True)


def _parts(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]


def _loaded(
    images: DecodedImages, parts: Iterator[tuple[np.ndarray, Drawn]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, np.ndarray, Drawn]]:
    """Squares (B, side, side, 3) uint8 and labels on the device, positions, and what was drawn."""

    def copied(positions: np.ndarray) -> Tensor:
        shape = (len(positions), images.side, images.side, 3)
        squares = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        images.gather(positions, out=squares.numpy())
        return squares

    def uploaded(squares: Tensor, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(images.labels[positions])
        return squares.to(device, non_blocking=True), _upload(labels, device)

    if device.type != "cuda":
        for positions, drawn in parts:
            yield *uploaded(copied(positions), positions), positions, drawn
        return
    pool = ThreadPoolExecutor(_COPYING, thread_name_prefix="prefetch")
    try:
        started = ((pool.submit(copied, each[0]), each) for each in parts)
        waiting = deque(itertools.islice(started, _COPYING + 1))
        while waiting:
            job, (positions, drawn) = waiting.popleft()
            squares = job.result()
            waiting.extend(itertools.islice(started, 1))
            yield *uploaded(squares, positions), positions, drawn
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _upload(values: Tensor, device: torch.device) -> Tensor:
    # A copy from memory that is not pinned would wait for all that the GPU has to do.
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _seeds(seed: int, epoch: int, *further: int) -> tuple[np.uint64, np.uint64]:
    order, change = np.random.SeedSequence([seed, epoch, *further]).generate_state(2, np.uint64)
    return order, change


def _generator(seed: np.uint64) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
