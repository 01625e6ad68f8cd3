"""Checks whether trials release their GPU memory."""

from __future__ import annotations

import gc
from typing import Any

import torch

_MIB = 2**20
# Memory that CUDA's libraries keep, such as the workspaces of matrix products.
FIXED_BYTES = 256 * _MIB
# Further memory that may be left before a worker process is replaced.
TOLERATED_BYTES = 64 * _MIB


class WorkerSpent(Exception):
    """Raised when a worker process must not run another trial; the message says why."""


def left_behind(allocated: int, shared: int, baseline: int) -> int:
    """Returns the bytes that earlier trials of a process did not release.

    Args:
        allocated: Bytes allocated on the GPU between two trials.
        shared: Bytes of these that trials share: a backbone, features.
        baseline: Unexplained bytes after the process' first trial.

    Returns:
        0 while the amount is tolerable.
    """
    # A first trial that leaves gigabytes does not set the baseline.
    left = allocated - shared - min(max(0, baseline), FIXED_BYTES)
    return left if left > TOLERATED_BYTES else 0


class GpuMemory:
    """Checks the GPU memory of a worker process after each trial."""

    def __init__(self) -> None:
        self._baseline: int | None = None

    def left_behind(self, shared: Any) -> int:
        """Returns the bytes that earlier trials did not release; empties torch's GPU cache.

        Args:
            shared: Objects that trials share; their tensors are allowed.

        Returns:
            0 while the amount is tolerable, and without a GPU.
        """
        if not torch.cuda.is_initialized():
            return 0
        gc.collect()
        if self._baseline is None:
            # Imported libraries stay, so they need not be searched after each trial.
            gc.freeze()
        torch.cuda.empty_cache()
        allocated, known = torch.cuda.memory_allocated(), tensor_bytes(shared, "cuda")
        if self._baseline is None:
            self._baseline = allocated - known
        return left_behind(allocated, known, self._baseline)


def tensor_bytes(thing: Any, device: str) -> int:
    """Counts the bytes of tensors on a device that an object of this package holds.

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
            # Strings are skipped: there may be a hundred thousand image names.
            stack += [each for each in one if not isinstance(each, str | bytes | int | float)]
        elif isinstance(one, torch.nn.Module) or type(one).__module__.startswith("gsfl_tune."):
            stack += getattr(one, "__dict__", {}).values()
    return sum(storages.values())


def spent(left: int) -> WorkerSpent:
    """Makes the error of a process that has `left` bytes too many."""
    return WorkerSpent(
        f"{left / _MIB:.0f} MiB of its GPU's memory were not given back by earlier trials"
    )
