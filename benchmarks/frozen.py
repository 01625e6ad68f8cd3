"""Frozen backbones on a CPU: the model as it is, our fast copy, OpenVINO's plugin.

Decides who runs a frozen part. The last measurement, on an AMD EPYC with two cores: OpenVINO's hint
for latency and our copy are level (0.99 to 1.09 times ours), its hint for throughput has half of
that. It needs 2 to 3 s more for each model, and 180 MB of disk. So ours stays; another way would be
another maker of `FrozenForward`.

How it is measured: images are random, batches are of 64, all cores are used, the fastest of some
rounds counts. OpenVINO gets the model by `openvino.convert_model` in float32 for a batch of any
size. Beside images/s stand the seconds that making it ready takes, and the largest difference of
the pooled unit feature from the model as it is.

    pip install openvino
    python benchmarks/frozen.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from _report import publish, table
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import frozen_forward

MODELS = ("tf_efficientnet_lite0", "resnet50", "mobilenetv3_large_100", "convnext_atto")
BATCH, SIZE = 64, 224
Forward = Callable[[Tensor], Tensor]


def unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps.mean((2, 3)), dim=1)


def openvino_of(model: nn.Module, hint: str) -> Forward:
    import openvino

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            return self.model.forward_features(images)

    converted = openvino.convert_model(
        Features().eval(), example_input=torch.randn(2, 3, SIZE, SIZE), input=[-1, 3, SIZE, SIZE]
    )
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


def rate(forward: Forward, images: Tensor, rounds: int) -> float:
    """Images a second."""
    with torch.inference_mode():
        forward(images)
        best = min(_seconds(forward, images) for _ in range(rounds))
    return len(images) / best


def _seconds(forward: Forward, images: Tensor) -> float:
    start = time.perf_counter()
    forward(images)
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> list[list[object]]:
    backbone = create_backbone(name, "none")
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    last = images.contiguous(memory_format=torch.channels_last)
    model = backbone.model.to(memory_format=torch.channels_last)
    ways: list[tuple[str, Callable[[], Forward], Tensor]] = [
        ("timm, eager", lambda: model.forward_features, last),
        ("ours", lambda: frozen_forward(backbone, (3, SIZE, SIZE)), last),
        ("OpenVINO, throughput", lambda: openvino_of(backbone.model, "THROUGHPUT"), images),
        ("OpenVINO, latency", lambda: openvino_of(backbone.model, "LATENCY"), images),
    ]
    rows: list[list[object]] = []
    expected: Tensor | None = None
    for way, make, given in ways:
        start = time.perf_counter()
        forward = make()
        ready = time.perf_counter() - start
        with torch.inference_mode():
            found = unit(forward(given))
        expected = found if expected is None else expected
        apart = float((found - expected).abs().max())
        speed = rate(forward, given, rounds)
        rows.append([name, way, f"{speed:.1f}", f"{ready:.1f}", f"{apart:.1e}"])
        print(*rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    rows = [row for name in args.models for row in measure(name, args.rounds)]
    header = ["backbone", "way", "images/s", "ready after, s", "difference"]
    publish("frozen", "Who runs a frozen backbone on a CPU", table(header, rows))


if __name__ == "__main__":
    main()
