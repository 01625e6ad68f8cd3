"""Training of one model by several processes: each batch is divided, and sums are over all.

Rank 0 is the training that the caller created. It writes the files and decides what to do next; the
other ranks follow. Batches, augmentation, class centres, batch norms, gradients and loss means
equal those of one process with the same batch. Only dropout masks differ, as each rank draws its
own.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from gsfl_tune.data.batch_share import BatchShare
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.workspace import Workspace

# Longer than any wait for an epoch's first batch, with caches to build and a compiler to run. A
# dead rank is noticed by the process that started it, not by this timeout.
_TIMEOUT = timedelta(hours=2)


class Divided(Protocol):
    """Describes a training to the process that starts further ranks."""

    config: Config
    workspace: Workspace
    directory: Path
    seed: int
    fit: FitOn

    @property
    def device(self) -> torch.device:
        """Returns the device of the training."""

    @property
    def pieces(self) -> int:
        """Returns the number of parts in which a batch is trained."""


class Team(Protocol):
    """Starts the other ranks of a training, see `gsfl_tune.search.workers.rank_pool`."""

    @property
    def size(self) -> int:
        """Returns the number of ranks, including this process."""

    def start(self, training: Divided) -> Ranks:
        """Starts ranks 1.. for a training; returns the group with this process as rank 0."""

    def next_epoch(self) -> None:
        """Tells the other ranks to train the next epoch; this process trains it too."""

    def watching(self) -> AbstractContextManager[None]:
        """Watches the other ranks during a block; if one of them fails, raises its error."""

    def leave(self) -> None:
        """Releases the other ranks when the training has ended or failed."""


class Ranks:
    """Joins the process group of a training.

    All ranks are on one machine. One group a process at a time.

    Args:
        rank: 0..size-1.
        size: Number of ranks.
        meeting: File by which ranks find each other, in a folder that only this user can write.
        device: Device of this rank; ``nccl`` is used between GPUs, else ``gloo``.
    """

    def __init__(self, rank: int, size: int, meeting: Path, device: torch.device) -> None:
        self.share = BatchShare(rank, size)
        self.device = device
        self.backend = "nccl" if device.type == "cuda" else "gloo"
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
        options: dict[str, Any] = {}
        if self.backend == "nccl":
            options["device_id"] = torch.device("cuda", torch.cuda.current_device())
        dist.init_process_group(
            self.backend,
            store=dist.FileStore(str(meeting), size),
            rank=rank,
            world_size=size,
            timeout=_TIMEOUT,
            **options,
        )

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces every tensor by its sum over all ranks, with one message for all tensors.

        Args:
            tensors: Tensors of one dtype, with the same shapes on every rank.
        """
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(self.device)
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        sums = [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), sums)

    def gather(self, values: Tensor, count: int) -> Tensor:
        """Joins the ranks' shares of a table, on every rank.

        Args:
            values: Rows (n, C) ``share.of(count)`` of the table, on the CPU.
            count: Rows of the table.

        Returns:
            (count, C) on the CPU.
        """
        shares = [BatchShare(rank, self.share.size).of(count) for rank in range(self.share.size)]
        sizes = [part.stop - part.start for part in shares]
        padded = values.new_zeros((max(sizes), *values.shape[1:]))
        padded[: len(values)] = values
        padded = padded.to(self.device)
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([one[:n] for one, n in zip(gathered, sizes, strict=True)]).cpu()

    def send(self, state: dict[str, Any]) -> None:
        """Sends the state of rank 0 to all others: tensors and plain values."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(content)], device=self.device), 0)
        dist.broadcast(content.to(self.device), 0)

    def receive(self) -> dict[str, Any]:
        """Receives the state that rank 0 sends."""
        size = torch.zeros(1, dtype=torch.int64, device=self.device)
        dist.broadcast(size, 0)
        content = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(content, 0)
        buffer = io.BytesIO(content.cpu().numpy().tobytes())
        state: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
        return state

    def close(self) -> None:
        """Leaves the group."""
        if dist.is_initialized():
            dist.destroy_process_group()
