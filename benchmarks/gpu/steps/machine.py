"""What machine this is, and its two ceilings: the bf16 matrix rate and the copy bandwidth."""

from __future__ import annotations

import os
import platform
import subprocess
import time

import timm
import torch
import torchvision
from _gpu import matmul_rate

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size, synchronise


def run(record: Record, size: Size) -> None:
    """Reports them."""
    gpu = size.device.type == "cuda"
    record.value("card", torch.cuda.get_device_name() if gpu else "none: CPU")
    record.value("driver", _driver() if gpu else "-")
    record.value(
        "versions",
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, timm {timm.__version__}, CUDA {torch.version.cuda}",
    )
    record.value("cores", f"{size.cores} of {os.cpu_count()}")
    if gpu:
        record.value("bf16 matrix rate, 8192 x 8192", f"{matmul_rate() / 1e12:.0f} TFLOP/s")
    record.value("copy bandwidth, read and written", f"{_bandwidth(size) / 1e9:,.0f} GB/s")


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _bandwidth(size: Size) -> float:
    numbers = size.of(2**30, 2**24)
    source = torch.randn(numbers, device=size.device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(8):
        synchronise()
        started = time.perf_counter()
        target.copy_(source)
        synchronise()
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best
