"""What a GPU could do at best, to set beside what a training makes of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def matmul_rate(side: int = 8192, repeats: int = 10) -> float:
    """Floating-point operations a second of a square bf16 matrix product, median."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for number in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(4):
            a @ b
        end.record()
        torch.cuda.synchronize()
        if number >= 3:
            seconds.append(start.elapsed_time(end) / 4000)
    return 2 * side**3 / statistics.median(seconds)


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops()
