"""Recognises out-of-memory errors of torch, CUDA and Python."""

from __future__ import annotations

import errno
import gc

import torch

# Number of parts of a batch after a whole batch ran out of memory.
HALVED = 2
# The reason of a failure when half batches ran out of memory too.
STILL_TOO_MUCH = "out of memory, at half the batch too"

# Allocators and libraries raise these as plain RuntimeErrors.
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> str | None:
    """Describes a failed allocation in one line; None for any other error.

    Args:
        error: The error. Its causes are searched too, as messages for users wrap them.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_memory(cause):
            text = str(cause).strip() or "the process could not allocate memory"
            return " ".join(text.splitlines()[0].split())
        cause = cause.__cause__
    return None


def free_memory() -> None:
    """Releases memory of a finished training; call it outside of ``except``."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
