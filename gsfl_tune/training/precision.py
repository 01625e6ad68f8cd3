"""Chooses the precision of a training: bf16 on GPUs, and on CPUs where it is faster."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gsfl_tune.cache.building import acquire
from gsfl_tune.cores import processor
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone, CannotCut, SplitBackbone
from gsfl_tune.models.frozen import gpu_has_bf16, has_bf16_units
from gsfl_tune.models.frozen_forward import FrozenForward, Precision
from gsfl_tune.models.grouped_convs import keep_grouped_convs_full
from gsfl_tune.run import read_json, write_json
from gsfl_tune.training.caches.features import digest

# Part of the key of every decision; raise it when the measurement changes.
CODE_VERSION = 3

# bf16 must be faster by this factor; otherwise fp32 stays.
_LEAST_GAIN = 1.1
_IMAGES, _STEPS = 16, 2


def uses_bf16(config: Config, backbone: Backbone, device: torch.device, cache_dir: Path) -> bool:
    """Returns whether a finetune stage runs under bf16 autocast.

    With ``training.precision: auto`` a GPU uses bf16 if it has it, not emulated. On a CPU with bf16
    matrix units, a few steps of the backbone are timed in both precisions. This is done once per
    processor, number of threads, backbone, what is read of it, number of blocks and image size. The
    decision is kept in the cache.

    Args:
        config: The configuration.
        backbone: The pretrained backbone; it is copied.
        device: Device of the trial.
        cache_dir: Root of the node's caches.
    """
    precision = config.training.precision
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return gpu_has_bf16(device)
    if not _on_a_cpu_with_units(config, device):
        return False
    blocks, size = config.training.finetune.blocks, config.data.image_size
    return _faster(_measured(backbone, blocks, size, cache_dir))


def whole_backbone_uses_bf16(backbone: Backbone, image_size: int, cache_dir: Path) -> bool:
    """Returns whether bf16 is faster on this CPU where all blocks are trained, see `uses_bf16`.

    Args:
        backbone: The backbone; it is copied.
        image_size: Side of the images in pixels.
        cache_dir: Root of the node's caches.
    """
    return has_bf16_units() and _faster(_measured(backbone, "all", image_size, cache_dir))


def features_again(config: Config) -> bool:
    """Returns whether the frozen features of a bundle, which are in fp32, are computed again.

    Args:
        config: Of a retrain.
    """
    features = config.model.feature_precision
    return config.training.cache_precision != "fp32" or features not in ("auto", "fp32")


def answers_again(config: Config) -> bool:
    """Returns whether the last answers of a trained backbone may need passes of their own in fp32.

    Args:
        config: Of a retrain, on a machine like this one.
    """
    training, stage = config.training, config.training.finetune
    if not stage.epochs:
        return False
    if stage.blocks != "all":
        rounded = bool(config.data.views) and training.cache_precision != "fp32"
        if rounded or config.model.feature_precision == "bf16":
            return True
    if training.precision != "auto":
        return training.precision == "bf16"
    here = torch.cuda.is_available()
    if training.device == "cuda" or (training.device == "auto" and here):
        # A driver without a GPU may have trials on nodes that have one.
        return not here or gpu_has_bf16(torch.device("cuda"))
    return training.device != "mps" and has_bf16_units()


def prefix_uses_bf16(
    config: Config, backbone: Backbone, device: torch.device, cache_dir: Path
) -> bool:
    """Returns whether frozen blocks before trained ones run in bf16: on CPUs where it is faster.

    ``model.feature_precision`` decides where it is fp32 or bf16, then ``training.precision``.

    Args:
        config: The configuration.
        backbone: The pretrained backbone; it is copied.
        device: Device of the trial.
        cache_dir: Root of the node's caches.
    """
    # Trained blocks follow: int8 is for features that nothing trained reads.
    if config.model.feature_precision not in ("auto", "int8"):
        return config.model.feature_precision == "bf16" and device.type == "cpu"
    precision = config.training.precision
    if precision != "auto" or device.type != "cpu":
        return precision == "bf16" and device.type == "cpu"
    if not _on_a_cpu_with_units(config, device):
        return False
    blocks, size = config.training.finetune.blocks, config.data.image_size
    seconds = _measured(backbone, blocks, size, cache_dir)
    slow, fast = seconds.get("prefix fp32", 0.0), seconds.get("prefix bf16", 1.0)
    return slow >= _LEAST_GAIN * fast


def _on_a_cpu_with_units(config: Config, device: torch.device) -> bool:
    return device.type == "cpu" and has_bf16_units() and config.training.finetune.epochs > 0


def _faster(seconds: dict[str, float]) -> bool:
    return seconds["fp32"] >= _LEAST_GAIN * seconds["bf16"]


def _measured(
    backbone: Backbone, blocks: int | str, size: int, cache_dir: Path
) -> dict[str, float]:
    key = digest(
        "precision", CODE_VERSION, torch.__version__, processor(), torch.get_num_threads(),
        backbone.name, backbone.reads, blocks, size,
    )  # fmt: skip

    def build(path: Path) -> None:
        write_json(path, _time_both(backbone, blocks, size))

    what = f"{backbone.name}, last {blocks} blocks, {size} px"
    with acquire(cache_dir / "precision" / f"{key}.json", build, what=what) as path:
        return dict(read_json(path))


def _time_both(backbone: Backbone, blocks: int | str, size: int) -> dict[str, float]:
    """Measures seconds of the frozen part and of a step of the trained part, best of a few.

    The precisions take turns, so that other load slows down both.
    """
    model = copy.deepcopy(backbone)
    keep_grouped_convs_full(model)
    model.train_last("all" if blocks == "all" else int(blocks))
    model.train()
    images = torch.randn(_IMAGES, 3, size, size).contiguous(memory_format=torch.channels_last)
    forward, inputs, split = _trained_part(model, blocks, size, images)
    found: dict[str, list[float]] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        started = time.perf_counter()
        act()
        found.setdefault(name, []).append(time.perf_counter() - started)

    def step(enabled: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = forward(inputs)
        output.float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    frozen: dict[Precision, FrozenForward] = {}
    if split is not None:
        frozen = {"fp32": split.frozen_prefix("fp32"), "bf16": split.frozen_prefix("bf16")}
    for _ in range(1 + _STEPS):
        timed("fp32", lambda: step(False))
        timed("bf16", lambda: step(True))
        with torch.inference_mode():
            for name, run in frozen.items():
                timed(f"prefix {name}", partial(run, images))
    return {name: min(times[1:]) for name, times in found.items()}


def _trained_part(
    model: Backbone, blocks: int | str, size: int, images: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor, SplitBackbone | None]:
    if blocks == "all" or int(blocks) >= model.block_count:
        return model, images, None
    try:
        split = model.split(size)
    except CannotCut:
        return model, images, None
    with torch.no_grad():
        return split.suffix, split.prefix(images), split
