"""Features of frozen backbones, from JPEG files: ours against timm, autocast and a `DataLoader`.

Ours is what a search does on an empty feature cache, from decoded squares; decoding the files, once
a node, is shown apart, and both together beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import features as benchmark
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.gpu.photographs import photographs
from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size, synchronise
from benchmarks.gpu.steps.finetune import BACKBONES, TINY
from gsfl_tune.data import prepare
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.models import Backbone, create_backbone
from gsfl_tune.models.frozen import frozen_forward


def run(record: Record, size: Size) -> None:
    """Asserts at least their images a second."""
    folder = photographs(size, size.of(4096, 96))
    for name in TINY[-1:] if size.tiny else BACKBONES:
        _compare(record, size, folder, name)


def _compare(record: Record, size: Size, folder: Path, name: str) -> None:
    side = {"test_vit": 160}.get(name, 64) if size.tiny else 224
    started = time.perf_counter()
    config = DataConfig(source="folder", path=str(folder), image_size=side)
    images = prepare(config, cache_dir=size.folder / f"features-{side}").pool
    decoding = time.perf_counter() - started
    backbone = create_backbone(name, "none").to(size.device)
    loader = benchmark.user_loader(folder, side, backbone, size.of(16, 2))
    ways: dict[str, Callable[[], Tensor]] = {
        "theirs": lambda: _theirs(loader, backbone, size.device),
        "ours": lambda: benchmark.our_features(images, side, backbone, "none", size.device),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(size.of(3, 2)):
        for way, compute in ways.items():
            synchronise()
            started = time.perf_counter()
            count = len(compute())
            if number:
                rates[way].append(count / (time.perf_counter() - started))
    ours, theirs = (statistics.median(rates[way]) for way in ("ours", "theirs"))
    if decoding > 1:
        together = len(images) / (decoding + len(images) / ours)
        record.value(f"files decoded in {decoding:.1f} s, once", f"{together:,.0f} with it")
    record.value(f"{name}: theirs, {size.of(16, 2)} workers", f"{theirs:,.0f} images/s")
    started = time.perf_counter()
    frozen_forward(backbone.cpu(), (3, side, side))
    making = time.perf_counter() - started
    record.value(f"{name}: ours", f"{ours:,.0f} images/s, {making:.1f} s of them for the fast copy")
    record.rate(f"{name}: ours / theirs", ours / theirs, 1.0)


def _theirs(loader: DataLoader, backbone: Backbone, device: torch.device) -> Tensor:
    model, prefix = backbone.model, getattr(backbone.model, "num_prefix_tokens", 0)
    features = []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"),
    ):
        for images, _ in loader:
            images = images.to(device, non_blocking=True)
            maps = model.forward_features(images.contiguous(memory_format=torch.channels_last))
            pooled = maps[:, prefix:].mean(1) if maps.ndim == 3 else maps.mean((2, 3))
            features.append(functional.normalize(pooled.float(), dim=1).cpu())
    return torch.cat(features)
