"""Running out of memory, as every layer below says it."""

from __future__ import annotations

import errno
import gc

import torch

# Parts of a batch for a training that ran out of memory with a whole one.
HALVED = 2
# Why a training fails that ran out of memory in two halves too.
STILL_TOO_MUCH = "out of memory, at half the batch too"

# RuntimeErrors of allocators and libraries that have no class of their own.
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> str | None:
    """What could not be allocated, in one line; None for any other error.

    Args:
        error: What was raised. Its causes count too: messages for users wrap them.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_memory(cause):
            text = str(cause).strip() or "the process could not allocate memory"
            return " ".join(text.splitlines()[0].split())
        cause = cause.__cause__
    return None


def free_memory() -> None:
    """Gives back what a training that is gone has left; call it outside of ``except``."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
