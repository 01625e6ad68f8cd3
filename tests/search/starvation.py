"""Memory that runs out for real, when a batch is too large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gsfl_tune.training.stages import Stage

# More than an address space holds: the allocator of the CPU refuses it on every machine.
TOO_MUCH = 1 << 50


@contextmanager
def starved(images: int | None) -> Iterator[None]:
    """Lets every step on more than so many images ask for more memory than there is."""
    original = Stage._step

    def step(self: Any, batch: Any, share: float = 1.0) -> Any:
        if images is not None and len(batch) > images:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return original(self, batch, share)

    Stage._step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stage._step = original  # type: ignore[method-assign]
