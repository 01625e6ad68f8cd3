"""Batches of decoded images, prefetched by one background thread."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.decoded import DecodedImages

Batch = tuple[Tensor, Tensor, np.ndarray]
Item = TypeVar("Item")

# Batches that wait while the consumer is busy.
_AHEAD = 2


def epoch_order(index: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Positions of ``index`` in the order in which `epoch_batches` shows them, (N,) int64."""
    order_seed, _ = _seeds(seed, epoch)
    order = torch.randperm(len(index), generator=_generator(order_seed)).numpy()
    return np.asarray(index, dtype=np.int64)[order]


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
        random: Fixed changes instead of those of (seed, epoch), as of `view_batches`.

    Yields:
        Images (B, 3, h, w) float32, labels (B,) int64, and their positions in ``images`` (B,)
        int64.
    """
    shuffled = epoch_order(index, seed=seed, epoch=epoch)
    stop = len(shuffled)
    if drop_last and stop >= batch_size:
        stop -= stop % batch_size
    if random is not None:
        return view_batches(
            images, shuffled[:stop], batch_size, random=random, transform=transform, device=device
        )
    # Another stream than the order's, so that the order does not depend on what is drawn here.
    generator = _generator(_seeds(seed, epoch)[1])
    parts = _parts(shuffled[:stop], batch_size)
    draws = ((positions, transform.draw(len(positions), generator)) for positions in parts)
    return _augmented(images, draws, transform, torch.device(device))


def view_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    random: Tensor,
    transform: Augment,
    device: torch.device | str,
) -> Iterator[Batch]:
    """All images of ``index`` in its order, changed in a way that is given for every image.

    What an image becomes depends on its row alone, and not on its batch or on the order.

    Args:
        images: Where the squares are.
        index: Positions in ``images``, in the order wanted.
        batch_size: Images a batch; the last one may hold fewer.
        random: (len(images), 8) as of `Augment.draw`: row i changes the image at position i.
            `Views.draw` is such a table, and so is a mixture of rows of several views.
        transform: How images change.
        device: Where batches go.

    Yields:
        As `epoch_batches`.

    Raises:
        ValueError: If the table has another number of rows than there are images.
    """
    if len(random) != len(images):
        raise ValueError(f"random has {len(random)} rows, there are {len(images)} images")
    parts = _parts(np.ascontiguousarray(index, dtype=np.int64), batch_size)
    draws = ((positions, random[torch.from_numpy(positions)]) for positions in parts)
    return _augmented(images, draws, transform, torch.device(device))


def eval_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    transform: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> Iterator[Batch]:
    """All images of ``index`` in its order; arguments and batches as of `epoch_batches`."""
    wanted = np.asarray(index, dtype=np.int64)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(wanted), batch_size):
            positions = wanted[start : start + batch_size]
            squares, labels = _load(images, positions, torch.device(device))
            with torch.no_grad():
                yield transform(squares), labels, positions

    return prefetch(batches)


def prefetch(produce: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Runs an iterator in a background thread, a few items ahead.

    An exception of the thread is raised where the items are consumed. The thread ends when
    the iterator is exhausted, closed or forgotten.

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
        # Wake a producer that waits for room, then wait for it: what it reads may be closed next.
        while not ready.empty():
            ready.get_nowait()
        # When the interpreter ends, daemon threads stand still and could not be waited for.
        if not sys.is_finalizing():
            thread.join()


def _augmented(
    images: DecodedImages,
    draws: Iterable[tuple[np.ndarray, Tensor]],
    transform: Augment,
    device: torch.device,
) -> Iterator[Batch]:
    def batches() -> Iterator[Batch]:
        for positions, random in draws:
            squares, labels = _load(images, positions, device)
            with torch.no_grad():
                yield transform.apply(squares, random), labels, positions

    return prefetch(batches)


def _parts(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]


def _load(
    images: DecodedImages, positions: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    squares = torch.from_numpy(images.gather(positions))
    labels = torch.from_numpy(images.labels[positions])
    if device.type == "cuda":
        squares = squares.pin_memory()
    return squares.to(device, non_blocking=True), labels.to(device)


def _seeds(seed: int, epoch: int) -> tuple[np.uint64, np.uint64]:
    order, change = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    return order, change


def _generator(seed: np.uint64) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
