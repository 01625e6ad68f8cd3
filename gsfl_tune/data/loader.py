"""Batches of decoded images, prefetched by one background thread."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.decoded import DecodedImages

Batch = tuple[Tensor, Tensor, np.ndarray]
Item = TypeVar("Item")

# Batches that wait while the consumer is busy.
_AHEAD = 2


def epoch_batches(
    images: DecodedImages,
    index: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    transform: Callable[[Tensor, torch.Generator], Tensor],
    device: torch.device | str,
    drop_last: bool = True,
) -> Iterator[Batch]:
    """One epoch of training batches, in an order and with changes that (seed, epoch) determine.

    Args:
        images: Where the squares are.
        index: Positions in ``images`` to train on.
        batch_size: Images a batch.
        seed: Seed of the training.
        epoch: Which epoch.
        transform: `Augment`: (B, S, S, 3) uint8 and a generator to (B, 3, h, w) float32.
        device: Where batches go.
        drop_last: Leave out the last batch if it is not full. If there are fewer images than
            one batch holds, they make one batch all the same.

    Yields:
        Images, labels (B,) int64, and their positions in ``images`` (B,) int64.
    """
    # Two streams, so that the order does not depend on what the augmentation draws.
    order_seed, change_seed = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    order = torch.randperm(len(index), generator=_generator(order_seed)).numpy()
    shuffled = np.asarray(index, dtype=np.int64)[order]
    generator = _generator(change_seed)
    stop = len(shuffled)
    if drop_last and stop >= batch_size:
        stop -= stop % batch_size

    def batches() -> Iterator[Batch]:
        for start in range(0, stop, batch_size):
            positions = shuffled[start : min(start + batch_size, stop)]
            squares, labels = _load(images, positions, torch.device(device))
            with torch.no_grad():
                yield transform(squares, generator), labels, positions

    return prefetch(batches)


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


def _load(
    images: DecodedImages, positions: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    squares = torch.from_numpy(images.gather(positions))
    labels = torch.from_numpy(images.labels[positions])
    if device.type == "cuda":
        squares = squares.pin_memory()
    return squares.to(device, non_blocking=True), labels.to(device)


def _generator(seed: np.uint64) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
