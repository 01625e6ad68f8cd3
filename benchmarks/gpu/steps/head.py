"""The head stage on cached features: one trial alone, and four processes that share the card."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import head as benchmark
import torch

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size, synchronise
from gsfl_tune.training import Workspace

PROCESSES = 4


def run(record: Record, size: Size) -> None:
    """Reports steps a second."""
    rounds, steps = size.of(8, 1), size.of(100, 3)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(
            benchmark.config("gsfl", size.device).data, cache_dir=Path(folder)
        )
        sides = benchmark.sides(workspace, size.device, steps)
        record.note(benchmark.compare(sides, torch.get_num_threads(), rounds, steps))
    alone = _rate(size)
    record.value("GSFL-Net, a process alone", f"{alone:,.0f} steps/s")
    command = [sys.executable, "-m", "benchmarks.gpu.steps.head", *(["tiny"] if size.tiny else [])]
    count = size.of(PROCESSES, 1)
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in processes:  # ready
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    rates = [float(process.communicate()[0]) for process in processes]
    together = f"{sum(rates):,.0f} steps/s together, {sum(rates) / alone:.2f} of one alone"
    record.value(f"GSFL-Net, {count} processes that share the card", together)


def _rate(size: Size, wait: bool = False) -> float:
    """Steps a second of one trial; with `wait`, from the moment when a line comes in."""
    steps, seconds = size.of(100, 3), size.of(4000, 50) / 1000
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(
            benchmark.config("gsfl", size.device).data, cache_dir=Path(folder)
        )
        epoch = benchmark.sides(workspace, size.device, steps)["ours, GSFL-Net"]
        epoch(0)
        if wait:
            print("ready", flush=True)
            sys.stdin.readline()
        synchronise()
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            done += 1
            epoch(done)
        synchronise()
        return done * steps / (time.perf_counter() - started)


if __name__ == "__main__":
    print(_rate(Size("tiny" in sys.argv, Path()), wait=True))
