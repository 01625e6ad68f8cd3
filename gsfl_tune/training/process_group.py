"""Several processes that train one model: every batch is divided, every sum is over all of it.

Rank 0 is the training that its caller knows: it writes the files and decides what comes next. The
others follow it. Batches, augmentation, class centres, batch norms, gradients and loss means are
those of one process at the same batch; masks of dropout are drawn by each rank for itself.
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

# Longer than any epoch's first batch takes to come, with caches to build and a compiler to run. A
# rank that is gone is noticed by who started it, not by this.
_TIMEOUT = timedelta(hours=2)


class Divided(Protocol):
    """What those who start further ranks must know of a training."""

    config: Config
    workspace: Workspace
    directory: Path
    seed: int
    fit: FitOn

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def pieces(self) -> int:
        """Parts that a batch is trained in."""


class Team(Protocol):
    """Who starts the other ranks of a training, see `gsfl_tune.search.workers.rank_pool`."""

    @property
    def size(self) -> int:
        """Number of ranks, this process' included."""

    def start(self, training: Divided) -> Ranks:
        """Brings up ranks 1.. for a training; returns the place of this process as rank 0."""

    def next_epoch(self) -> None:
        """Has the others train the next epoch; this process does the same."""

    def watching(self) -> AbstractContextManager[None]:
        """What happens here with the others: if one of them breaks, raises what broke it."""

    def leave(self) -> None:
        """The training is over, or broke: the others are free."""


class Ranks:
    """The process group of a training, and the place of this process in it.

    All ranks are on one machine. One group a process at a time.

    Args:
        rank: 0..size-1.
        size: Number of ranks.
        meeting: File by which they find each other, in a folder that nobody else can write.
        device: Where this rank computes: ``nccl`` between GPUs, else ``gloo``.
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
        """Puts the sum over all ranks in place of every tensor; one message for all of them.

        Args:
            tensors: The same shapes on every rank, of one type.
        """
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(self.device)
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        sums = [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), sums)

    def gather(self, values: Tensor, count: int) -> Tensor:
        """Joins the shares of a table, on every rank.

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
        """Rank 0 gives all others its state: tensors and plain values."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(content)], device=self.device), 0)
        dist.broadcast(content.to(self.device), 0)

    def receive(self) -> dict[str, Any]:
        """What rank 0 sends."""
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
