"""Frozen backbones on a CPU: the model as it is, our fast copy, and OpenVINO, in fp32 and bf16.

With --onnxruntime also ONNX Runtime, in fp32 and in int8 (quantised with images of the benchmark,
which are random: how far its features are off with trained weights and photographs is another
question, that of `feature_precision.py --int8`).

Decides who runs a frozen part, and what a request of OpenVINO holds
(`gsfl_tune.models.openvino_forward.REQUEST`).

How it is measured: weights and images are random, the ways take turns, the fastest of some rounds
counts. Beside images/s stand the ratio to our copy in fp32 (what ran before there was another way),
the CPU seconds that making and checking it takes, and the largest difference of the pooled unit
feature from the model as it is.

With --busy one thread runs and the time is that of the CPU which the process used. So other load
on the machine hardly enters; rates of all cores are about as many times higher.

    python benchmarks/frozen.py            # all cores, by the clock
    python benchmarks/frozen.py --busy
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from _report import publish, table
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.models.int8_forward import int8_forward
from gsfl_tune.models.onnxruntime_forward import onnxruntime_forward
from gsfl_tune.models.openvino_forward import EngineRefused, openvino_forward

MODELS = ("tf_efficientnet_lite0", "resnet50", "convnext_tiny", "vit_small_patch16_224")
SIZE = 224
BASE = "ours, fp32"


def unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps.mean((2, 3)), dim=1)


def measure(
    name: str, count: int, rounds: int, clock: Callable[[], float], folder: Path | None
) -> tuple[list[list[object]], dict[str, float]]:
    """Rows of one backbone, and the ratios of its ways."""
    backbone = create_backbone(name, "none").eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    shape = (3, SIZE, SIZE)
    makers: dict[str, Callable[[], nn.Module]] = {
        "timm, eager": lambda: backbone.to(memory_format=torch.channels_last),
        BASE: partial(frozen_forward, backbone, shape),
        "ours, bf16": partial(frozen_forward, backbone, shape, precision="bf16"),
        "OpenVINO, fp32": partial(openvino_forward, backbone, shape),
        "OpenVINO, bf16": partial(openvino_forward, backbone, shape, precision="bf16"),
    }
    if folder is not None:
        makers |= {
            "ONNX Runtime, fp32": partial(onnxruntime_forward, backbone, shape),
            "ONNX Runtime, int8": lambda: int8_forward(
                backbone, lambda: images.split(8), folder / f"{name}.onnx"
            )[0],
        }
    ways: dict[str, nn.Module] = {}
    ready: dict[str, float] = {}
    for way, make in makers.items():
        begun = time.process_time()
        try:
            ways[way] = make()
        except EngineRefused as error:
            print(name, way, "refused:", error, flush=True)
        ready[way] = time.process_time() - begun
    best: dict[str, float] = {}
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        for turn in range(1 + rounds):
            for way, forward in ways.items():
                begun = clock()
                maps = forward(images)
                seconds = clock() - begun
                found[way] = unit(maps)
                if turn:  # weights are packed at the first
                    best[way] = min(best.get(way, seconds), seconds)
    ratios = {way: best[BASE] / seconds for way, seconds in best.items()}
    rows: list[list[object]] = []
    for way, seconds in best.items():
        apart = float((found[way] - found["timm, eager"]).abs().max())
        rows.append(
            [
                *(name, way, f"{count / seconds:.1f}", f"{ratios[way]:.2f}"),
                *(f"{ready[way]:.1f}", f"{apart:.1e}"),
            ]
        )
        print(*rows[-1], flush=True)
    return rows, ratios


def mean_line(every: Sequence[dict[str, float]]) -> str:
    """Geometric means over the backbones that every way ran."""
    words = []
    for way in every[0]:
        ratios = [each[way] for each in every if way in each]
        if len(ratios) == len(every):
            mean = float(torch.tensor(ratios).log().mean().exp())
            words.append(f"{way} {mean:.2f} (least {min(ratios):.2f})")
    return f"Ratio to {BASE}, geometric mean over the backbones: {'; '.join(words)}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="one thread, seconds of the CPU")
    parser.add_argument("--onnxruntime", action="store_true", help="ONNX Runtime too")
    args = parser.parse_args(arguments)
    threads = 1 if args.busy else len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    count = 16 if args.busy else 64
    clock = time.process_time if args.busy else time.perf_counter
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if args.onnxruntime else None
        measured = [measure(name, count, args.rounds, clock, folder) for name in args.models]
    rows = [row for each, _ in measured for row in each]
    header = ["backbone", "way", "images/s", "ratio", "ready after, CPU s", "difference"]
    how = "seconds of the CPU on a busy machine" if args.busy else "by the clock"
    text = "\n\n".join(
        [
            table(header, rows),
            mean_line([ratios for _, ratios in measured]),
            f"{SIZE} px, batches of {count}, {threads} thread{'s' if threads > 1 else ''}, {how}, "
            f"the fastest of {args.rounds} alternating rounds.",
        ]
    )
    publish("frozen", "Who runs a frozen backbone on a CPU", text)


if __name__ == "__main__":
    main()
