"""Whether a trial gave back the memory of its GPU."""

from __future__ import annotations

import gc
from typing import Any

import torch

_MIB = 2**20
# What CUDA's libraries keep for themselves, such as the workspaces of matrix products.
FIXED_BYTES = 256 * _MIB
# What may be left besides before a worker process is not used again.
TOLERATED_BYTES = 64 * _MIB


class WorkerSpent(Exception):
    """The worker process must not be used for another trial; the message says why."""


def left_behind(allocated: int, shared: int, baseline: int) -> int:
    """Bytes that earlier trials of a process did not give back.

    Args:
        allocated: Bytes allocated on the GPU between two trials.
        shared: Of them, bytes that trials share: a backbone, features.
        baseline: Bytes that nobody accounted for after the process' first trial.

    Returns:
        0 while it is tolerable.
    """
    # A first trial that leaves gigabytes is no standard for those that follow.
    left = allocated - shared - min(max(0, baseline), FIXED_BYTES)
    return left if left > TOLERATED_BYTES else 0


class GpuMemory:
    """Watches a worker process from trial to trial."""

    def __init__(self) -> None:
        self._baseline: int | None = None

    def left_behind(self, shared: Any) -> int:
        """Bytes that earlier trials did not give back; returns what is cached to the GPU.

        Args:
            shared: What trials may keep for each other; its tensors are accounted for.

        Returns:
            0 while it is tolerable, and without a GPU.
        """
        if not torch.cuda.is_initialized():
            return 0
        gc.collect()
        if self._baseline is None:
            # Libraries are imported for good: they need not be searched between all trials.
            gc.freeze()
        torch.cuda.empty_cache()
        allocated, known = torch.cuda.memory_allocated(), tensor_bytes(shared, "cuda")
        if self._baseline is None:
            self._baseline = allocated - known
        return left_behind(allocated, known, self._baseline)


def tensor_bytes(thing: Any, device: str) -> int:
    """Bytes of the tensors on a kind of device that an object of this package holds.

    Args:
        thing: The object; containers, modules and attributes are followed.
        device: ``cuda`` or ``cpu``.
    """
    storages: dict[int, int] = {}
    seen: set[int] = set()
    stack = [thing]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            if one.device.type == device:
                storage = one.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, dict):
            stack += one.values()
        elif isinstance(one, list | tuple | set):
            # Not the names of a hundred thousand images.
            stack += [each for each in one if not isinstance(each, str | bytes | int | float)]
        elif isinstance(one, torch.nn.Module) or type(one).__module__.startswith("gsfl_tune."):
            stack += getattr(one, "__dict__", {}).values()
    return sum(storages.values())


def spent(left: int) -> WorkerSpent:
    """What is raised in a process that has `left` bytes too many."""
    return WorkerSpent(
        f"{left / _MIB:.0f} MiB of its GPU's memory were not given back by earlier trials"
    )
