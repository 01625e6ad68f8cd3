"""Makes batches of decoded images in background threads while the consumer works.

On the CPU a few threads share the images of a batch. Each image goes from the cache's memory map to
its place in the batch. For a GPU a few threads copy batches to pinned memory. One thread uploads
them, and the GPU changes the images. `view_batches` is for changes that are fixed per image.
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
# Positions of a batch, and random numbers for the changes in each of V views: (V, B, width).
Draw = tuple[np.ndarray, Tensor]

# Batches begun while the consumer is busy.
_AHEAD = 2
# Threads that copy to pinned memory, one batch each; one thread is slower than the GPU.
_COPYING = 4
_starting = threading.Lock()


def epoch_order(
    index: np.ndarray, labels: np.ndarray, *, seed: int, epoch: int, balance: float = 0.0
) -> np.ndarray:
    """Draws positions in the order in which `epoch_batches` shows them, (N,) int64.

    Args:
        index: (N,) positions to train on.
        labels: Labels of all images.
        seed: Seed of the training.
        epoch: Number of the epoch.
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
    first_view: int = 0,
    annotations: Annotations | None = None,
) -> Iterator[Batch]:
    """Yields one epoch of training batches, whose order and changes depend on (seed, epoch).

    Args:
        images: The decoded images.
        index: Positions in ``images`` to train on.
        batch_size: Images per batch.
        seed: Seed of the training.
        epoch: Number of the epoch.
        transform: Changes of the images.
        device: Device of the batches.
        drop_last: Leave out the last batch if it is not full. Fewer images than one batch still
            make a batch.
        random: Fixed changes instead of those of (seed, epoch), as for `view_batches`; ``views`` is
            then not used.
        threads: Threads that change images on the CPU; default: ``torch.get_num_threads()``, so
            that trials of one machine do not use each other's cores. The images do not depend on
            it.
        share: The part of every batch that this process gets. An image's changes do not depend on
            the process.
        balance: Balance of rare and frequent classes, see `epoch_positions`.
        views: Number of differently changed copies of each image in a batch. The first view is the
            same for every number.
        first_view: Number of the first view. Two iterators with other views show the same images
            in the same order.
        annotations: Annotations of all ``images``, in pixels of the squares; batches then have
            theirs.

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
    # Separate from the order's stream, so that the order does not depend on these numbers.
    sources = [
        (_generator(_seeds(seed, epoch, *further)[1]), Streams(seed, epoch, *further))
        for further in ((view,) if view else () for view in range(first_view, first_view + views))
    ]

    def drawn() -> Iterator[Draw]:
        for positions in _parts(shuffled[:stop], batch_size):
            own = share.of(len(positions))
            rows = [transform.draw_rows(len(positions), *source)[own] for source in sources]
            yield positions[own], torch.stack(rows)

    return augmented(images, drawn(), transform, torch.device(device), threads, annotations)


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
    """Yields all images of ``index`` in its order, with changes given per image.

    A result depends only on the image's row, not on its batch or on the order.

    Args:
        images: The decoded images.
        index: Positions in ``images``, in the order wanted.
        batch_size: Images per batch; the last one may have fewer.
        random: (len(images), n) as for `Augment.apply`: row i changes the image at position i.
            `Views.draw` makes such a table; rows of several views may be mixed. With (V,
            len(images), n) a batch has V views of each image.
        transform: Changes of the images.
        device: Device of the batches.
        threads: As for `epoch_batches`.
        share: As for `epoch_batches`.
        annotations: As for `epoch_batches`.

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
    return augmented(images, draws, transform, torch.device(device), threads, annotations)


def eval_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    transform: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> Iterator[Batch]:
    """Yields all images of ``index`` in its order, in one view.

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


def augmented(
    images: DecodedImages,
    draws: Iterator[Draw],
    transform: Augment,
    device: torch.device,
    threads: int | None,
    annotations: Annotations | None,
) -> Iterator[Batch]:
    """Yields batches of given positions and random numbers; for arguments see `epoch_batches`."""

    def named(
        values: tuple[Tensor, ...], labels: Tensor, positions: np.ndarray, random: Tensor
    ) -> Batch:
        moved, side = None, None
        if annotations is not None:
            own = annotations.rows(positions)
            moved = tuple(
                own.moved(transform.matrices(rows, images.side).numpy()) for rows in random
            )
            side = transform.size
        return Batch(values, Targets(labels), torch.from_numpy(positions), moved, side=side)

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
    """Runs `Augment` on the CPU: each thread does a part of each batch, two batches ahead.

    An exception of a thread is raised where the batches are consumed. The threads end when the
    iterator is exhausted, closed or deleted.
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
                # Never an inference tensor, as the caller may train on it.
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
            # A reference kept until the next batch would block the memory.
            del batch


class _ArrayPool:
    """Keeps arrays for batches and uses them again once nothing refers to their last content.

    The system clears new memory of this size page by page at the first write. That takes longer
    than to fill it with images.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[np.ndarray] = []

    def take(self, count: int) -> np.ndarray:
        """Returns (count, *shape) float32 with any content."""
        # Garbage collection may append at any time; only this method pops.
        while self._free:
            array = self._free.pop()
            if len(array) >= count:
                break
        else:
            array = np.empty((count, *self._shape), dtype=np.float32)
        # Tensors and views keep a lent array alive, in Python and in autograd's graph.
        lent = array[:count]
        weakref.finalize(lent, self._free.append, array).atexit = False
        return lent


@contextmanager
def _workers(
    count: int, finalizing: Callable[[], bool] = sys.is_finalizing
) -> Iterator[ThreadPoolExecutor]:
    """Makes threads in which torch's operations do not start further threads."""
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        # A pool whose initializer fails empties its queue, including the signal to end. Threads
        # that wait for work, and their waiters, then wait for ever.
        with suppress(threading.BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="prefetch", initializer=start)
    try:
        with _starting:
            before = torch.get_num_threads()
            for _ in range(count):
                pool.submit(int)  # starts a thread, as no other is idle yet
            ready.wait()
            # The setting belongs to each thread, but new threads also inherit it.
            torch.set_num_threads(before)
        yield pool
    except BaseException:
        ready.abort()  # else started threads would wait for the others
        raise
    finally:
        # An epoch that is unfinished at exit is closed after modules that a shutdown needs. The
        # threads have ended by then.
        if not finalizing():
            pool.shutdown(wait=True, cancel_futures=True)


def _parts(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]


def _loaded(
    images: DecodedImages, parts: Iterator[tuple[np.ndarray, Drawn]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, np.ndarray, Drawn]]:
    """Yields squares (B, side, side, 3) uint8 and labels on the device, positions, draws."""

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
    # A copy from memory that is not pinned would wait for all work of the GPU.
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _seeds(seed: int, epoch: int, *further: int) -> tuple[np.uint64, np.uint64]:
    order, change = np.random.SeedSequence([seed, epoch, *further]).generate_state(2, np.uint64)
    return order, change


def _generator(seed: np.uint64) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
