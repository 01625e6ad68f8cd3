"""A training that belongs to this process as long as no other takes it over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from gsfl_tune.run import EpochLog, Ownership
from gsfl_tune.run.checkpoints import discard
from gsfl_tune.run.storage import Signal
from gsfl_tune.training.checkpoint import CheckpointError
from gsfl_tune.training.training import Training

Ending = Literal["done", "interrupted"]


def take(training: Training) -> Ownership:
    """Takes a training's directory over from any other process, and continues there.

    A checkpoint that cannot be read is deleted.

    Returns:
        A claim that tells whether another process has taken it since; ``epochs.jsonl`` checks
        this by itself.
    """
    ownership = Ownership(training.directory)
    ownership.take()
    training.log = EpochLog(training.log.path, ownership.check)
    try:
        training.restore()
    except CheckpointError:
        discard(training.checkpoint_path)
        training.restore()
    return ownership


def save(training: Training, ownership: Ownership) -> None:
    """Writes the checkpoint.

    Raises:
        OwnershipLost: When another process has taken the training over.
    """
    begun = time.monotonic()
    ownership.check()
    training.save()
    training.save_seconds += time.monotonic() - begun


def train_to(
    training: Training,
    epoch: int,
    ownership: Ownership,
    *,
    interrupt: Signal,
    save_seconds: float,
    last_save: float,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> tuple[Ending, float]:
    """Trains up to an epoch, checking for the interrupt and saving now and then.

    Returns:
        How it ended, and the time of the last checkpoint (`time.monotonic`).

    Raises:
        OwnershipLost: When another process has taken the training over.
    """
    while training.epoch < epoch:
        if interrupt.exists():
            save(training, ownership)
            return "interrupted", time.monotonic()
        on_epoch(training.run_epoch())
        if time.monotonic() - last_save >= save_seconds:
            save(training, ownership)
            last_save = time.monotonic()
    return "done", last_save
