"""Which precision a finetune stage computes in: bf16 on GPUs, and on CPUs where it is faster."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gsfl_tune.data.locking import acquire
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.models.grouped_convs import keep_grouped_convs_full
from gsfl_tune.run import read_json, write_json
from gsfl_tune.training.features import digest

# Part of the key of every decision: raise it when what is measured changes.
CODE_VERSION = 1

# bf16 must be faster by so much: what is level stays what it was.
_LEAST_GAIN = 1.1
_IMAGES, _STEPS = 16, 2


def uses_bf16(config: Config, backbone: Backbone, device: torch.device, cache_dir: Path) -> bool:
    """Whether a finetune stage runs under bf16 autocast.

    With ``training.precision: auto`` a GPU decides by what it has. On a CPU with bf16 matrix units
    a few steps of the backbone are timed in both precisions, once a node, backbone, number of
    blocks and image size; the decision is kept in the node's cache.

    Args:
        config: The configuration.
        backbone: The pretrained backbone; it is copied.
        device: Where the trial computes.
        cache_dir: Root of the node's caches.
    """
    precision = config.training.precision
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu" or not has_bf16_units() or not config.training.finetune.epochs:
        return False
    return _measured(config, backbone, cache_dir)


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX)."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


def _measured(config: Config, backbone: Backbone, cache_dir: Path) -> bool:
    blocks, size = config.training.finetune.blocks, config.data.image_size
    key = digest("precision", CODE_VERSION, torch.__version__, backbone.name, blocks, size)

    def build(path: Path) -> None:
        write_json(path, _time_both(backbone, blocks, size))

    what = f"{backbone.name}, last {blocks} blocks, {size} px"
    with acquire(cache_dir / "precision" / f"{key}.json", build, what=what) as path:
        seconds = read_json(path)
    return bool(seconds["fp32"] >= _LEAST_GAIN * seconds["bf16"])


def _time_both(backbone: Backbone, blocks: int | str, size: int) -> dict[str, float]:
    """Seconds of a training step of the trained part, the fastest of a few."""
    model = copy.deepcopy(backbone)
    keep_grouped_convs_full(model)
    model.train_last("all" if blocks == "all" else int(blocks))
    model.train()
    images = torch.randn(_IMAGES, 3, size, size).contiguous(memory_format=torch.channels_last)
    forward, inputs = _trained_part(model, blocks, size, images)
    found = {}
    for name, enabled in (("fp32", False), ("bf16", True)):
        times = []
        for _ in range(1 + _STEPS):
            started = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                output = forward(inputs)
            output.float().square().mean().backward()
            times.append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
        found[name] = min(times[1:])
    return found


def _trained_part(
    model: Backbone, blocks: int | str, size: int, images: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    if blocks == "all" or int(blocks) >= model.block_count:
        return model, images
    try:
        split = model.split(size)
    except CannotCut:
        return model, images
    with torch.no_grad():
        return split.suffix, split.prefix(images)
