"""All cores for the one process that builds what others wait for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gsfl_tune.cores import usable_cores


@contextmanager
def all_cores(device: torch.device) -> Iterator[None]:
    """Lets the one process that builds use every core, as the others wait for it."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(threads, usable_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
