"""The finetune stage against a bare loop beside it, for three backbones, all blocks trained.

Bars and sides are those of ``benchmarks/finetune.py``: the bare loop takes its batches from the
same loader; another one takes tensors that lie ready on the card.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import finetune as benchmark
import torch
from _gpu import matmul_rate
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.photographs import photographs
from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size, synchronise
from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Workspace

BACKBONES = ("resnet50", "convnext_tiny", "vit_small_patch16_224")
TINY = ("test_resnet", "test_vit")


def run(record: Record, size: Size) -> None:
    """Asserts at least 0.95 of the bare loop's images a second."""
    rate = matmul_rate() if size.device.type == "cuda" else 0.0
    if rate:
        record.value("bf16 matrix rate", f"{rate / 1e12:.0f} TFLOP/s")
    for name in TINY if size.tiny else BACKBONES:
        bench = open_bench(size, name, batch=size.of(64, 8), steps=size.of(24, 2))
        _compare(record, size, bench, rate)


def open_bench(size: Size, backbone: str, *, batch: int, steps: int) -> benchmark.Bench:
    """Random weights, on rendered photographs."""
    side = {"test_vit": 160}.get(backbone, 64) if size.tiny else 224
    count = size.of(4096, 96)
    folder = photographs(size, count)
    data = {"source": "folder", "path": str(folder), "image_size": side}
    shell = Config.model_validate({"name": "benchmark", "data": data})
    workspace = Workspace.open(shell.data, device=size.device)
    positions = torch.from_numpy(workspace.dataset.train_index)[: batch * steps]
    return benchmark.Bench(
        workspace, data, "none", size.device, positions, size.folder, backbone, batch
    )


def _compare(record: Record, size: Size, bench: benchmark.Bench, rate: float) -> None:
    sides = {
        "bare": bench.bare("plain"),
        "ours, plain head": bench.ours("plain"),
        "ours, GSFL-Net": bench.ours("gsfl"),
        "bare, tensors on the card": bench.bare("plain", preloaded=True),
    }
    seconds = benchmark.timed(sides, size.of(4, 1))
    images = len(bench.positions) // bench.batch * bench.batch
    flops = bench.operations() if rate else 0
    for name, values in seconds.items():
        speed = images / statistics.median(values)
        share = f", {speed * flops / rate:.1%} of the bf16 rate" if rate else ""
        record.value(f"{bench.backbone}: {name}", f"{speed:,.0f} images/s{share}")

    def ratio(one: str) -> float:
        pairs = zip(seconds["bare"], seconds[one], strict=True)
        return statistics.median(a / b for a, b in pairs)

    record.rate(f"{bench.backbone}: ours, plain head / bare", ratio("ours, plain head"), 0.95)
    record.value(f"{bench.backbone}: ours, GSFL-Net / bare", f"{ratio('ours, GSFL-Net'):.3f}")
    few = replace(bench, positions=bench.positions[: 3 * bench.batch])
    record.value(
        f"{bench.backbone}: where the time goes",
        _largest(few.ours("gsfl"), size.device.type == "cuda"),
    )
    if size.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        record.value(f"{bench.backbone}: peak memory of all sides", f"{peak:.1f} GiB")
        torch.cuda.reset_peak_memory_stats()


def _largest(epoch: benchmark.Epoch, gpu: bool) -> str:
    """The three operations that take most of the device's time, and how busy it is."""
    epoch(0)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as recorded:
        started = time.perf_counter()
        epoch(99)
        synchronise()
        seconds = time.perf_counter() - started
    # Without the rows of the kernels themselves, whose time the operations have too.
    averages = [each for each in recorded.key_averages() if each.device_type.name == "CPU"]

    def cost(each: object) -> float:
        return float(getattr(each, f"self_{'device' if gpu else 'cpu'}_time_total"))

    total = sum(cost(each) for each in averages) or 1.0
    largest = sorted(averages, key=cost, reverse=True)[:3]
    words = [f"{each.key[:40]} {cost(each) / total:.0%}" for each in largest]
    return "; ".join([*words, f"busy {total / 1e6 / seconds:.0%} of the time"])
