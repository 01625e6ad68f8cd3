"""Training of one model by several processes: each batch is divided, and sums are over all.

They are on one machine or on several. Rank 0 is the training that the caller created. It writes the
files and decides what to do next; the other ranks follow. Batches, augmentation, class centres,
batch norms, gradients and loss means equal those of one process with the same batch. Only dropout
masks differ, as each rank draws its own.
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

    @property
    def shards(self) -> bool:
        """Returns whether trained parameters are divided too, see `gsfl_tune.training.sharding`."""

    def start(self, training: Divided) -> Ranks:
        """Starts ranks 1.. for a training; returns the group with this process as rank 0."""

    def next_epoch(self) -> None:
        """Tells the other ranks to train the next epoch; this process trains it too."""

    def next_state(self) -> None:
        """Tells the other ranks to join their parts of the state; this process does it too."""

    def watching(self) -> AbstractContextManager[None]:
        """Watches the other ranks during a block; if one of them fails, raises its error."""

    def leave(self) -> None:
        """Releases the other ranks when the training has ended or failed."""


class Ranks:
    """Joins the process group of a training. One group a process at a time.

    Args:
        rank: 0..size-1.
        size: Number of ranks.
        meeting: Where ranks find each other: a file in a folder that only this user can write, or
            on several machines a store of `meet`.
        device: Device of this rank; ``nccl`` is used between GPUs, else ``gloo``.
        shards: Whether trained parameters are divided; states then travel between the CPUs.
        address: IP address of this machine, where ranks are on several. Messages take its network,
            unless the user has chosen one (``GLOO_SOCKET_IFNAME``, ``NCCL_SOCKET_IFNAME``).
    """

    def __init__(
        self,
        rank: int,
        size: int,
        meeting: Path | dist.Store,
        device: torch.device,
        *,
        shards: bool = False,
        address: str | None = None,
    ) -> None:
        self.share = BatchShare(rank, size)
        self.device = device
        self.shards = shards
        self.backend = "nccl" if device.type == "cuda" else "gloo"
        # What is sent as a whole: on a GPU there may be no room for it beside a part of it.
        self._carrier = torch.device("cpu") if shards else device
        _choose_network(address)
        options: dict[str, Any] = {}
        if self.backend == "nccl":
            options["device_id"] = torch.device("cuda", torch.cuda.current_device())
        both = shards and self.backend == "nccl"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if both else self.backend,
            store=dist.FileStore(str(meeting), size) if isinstance(meeting, Path) else meeting,
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
        padded = padded.to(self._carrier)
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([one[:n] for one, n in zip(gathered, sizes, strict=True)]).cpu()

    def send(self, state: dict[str, Any]) -> None:
        """Sends the state of rank 0 to all others: tensors and plain values."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(content)], device=self._carrier), 0)
        dist.broadcast(content.to(self._carrier), 0)

    def receive(self) -> dict[str, Any]:
        """Receives the state that rank 0 sends."""
        size = torch.zeros(1, dtype=torch.int64, device=self._carrier)
        dist.broadcast(size, 0)
        content = torch.empty(int(size), dtype=torch.uint8, device=self._carrier)
        dist.broadcast(content, 0)
        buffer = io.BytesIO(content.cpu().numpy().tobytes())
        state: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
        return state

    def close(self) -> None:
        """Leaves the group."""
        if dist.is_initialized():
            dist.destroy_process_group()


def meet(address: str, size: int, port: int | None = None) -> dist.TCPStore:
    """Opens a place where ranks on several machines find each other.

    Args:
        address: IP address of the machine of rank 0.
        size: Number of ranks.
        port: Port of the store; None makes one there, on a free port. Whoever reaches it can take
            part: like Ray itself, it belongs into a network of one's own.
    """
    host = port is None
    return dist.TCPStore(
        address, port or 0, size, is_master=host, timeout=_TIMEOUT, wait_for_workers=False
    )


_NETWORKS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
# What the user has chosen. A later group of this process may need another network than this one.
_CHOSEN = {name: os.environ[name] for name in _NETWORKS if name in os.environ}


def _choose_network(address: str | None) -> None:
    found = ("lo0" if sys.platform == "darwin" else "lo") if address is None else _network(address)
    for name in _NETWORKS:
        if name in _CHOSEN:
            continue
        if found is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = found


def _network(address: str) -> str | None:
    """Returns the name of the network card with an address; None where this machine has none."""
    import psutil

    for name, known in psutil.net_if_addrs().items():
        if any(each.address == address for each in known):
            return name
    return None
