"""``training.finetune.compile`` on and off: images a second, and what compiling takes.

A smoke run goes the same way without compiling; a test of the finetune stage compiles on the CPU.
"""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size, synchronise
from benchmarks.gpu.steps.finetune import open_bench


def run(record: Record, size: Size) -> None:
    """Reports them."""
    if size.tiny:
        torch.compiler.set_stance("force_eager")
    names = ("test_resnet",) if size.tiny else ("resnet50", "vit_small_patch16_224")
    for name in names:
        bench = open_bench(size, name, batch=size.of(64, 8), steps=size.of(24, 2))
        images = len(bench.positions) // bench.batch * bench.batch
        speeds = {}
        for compiled in (False, True):
            epoch = bench.ours("gsfl", compiled=compiled)
            started = time.perf_counter()
            epoch(0)
            synchronise()
            first = time.perf_counter() - started
            seconds = []
            for number in range(size.of(4, 1)):
                started = time.perf_counter()
                epoch(number + 1)
                synchronise()
                seconds.append(time.perf_counter() - started)
            speeds[compiled] = images / statistics.median(seconds)
            word = "compiled" if compiled else "eager"
            record.value(
                f"{name}, {word}", f"{speeds[compiled]:,.0f} images/s, first epoch {first:.1f} s"
            )
        record.value(f"{name}: compiled / eager", f"{speeds[True] / speeds[False]:.2f}")
