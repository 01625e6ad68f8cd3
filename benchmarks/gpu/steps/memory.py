"""Does a trial give its memory back? Ten trials of different sizes in one process."""

from __future__ import annotations

import gc
from typing import Any

import torch

from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size
from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Training, Workspace

MIB = 2**20


def run(record: Record, size: Size) -> None:
    """Asserts that what is allocated after each is what was allocated before the first."""
    workspace = Workspace.open(_config(size, 0).data, device=size.device)
    start = None
    for number in range(size.of(11, 3)):
        training = Training(_config(size, number), workspace, size.folder / f"memory-{number}")
        while not training.finished:
            training.run_epoch()
        peak = _peak(size)
        training.close()
        del training
        # As a worker does between two trials.
        workspace.free_device()
        found = _allocated(size)
        if start is None:  # the first loads libraries, which keep their workspaces
            start = found
            record.value("after a first trial", f"{found / MIB:.1f} MiB, peak {peak / MIB:.0f}")
            continue
        what = f"trial {number}, peak {peak / MIB:.0f} MiB: more than at the start, MiB"
        record.at_most(what, (found - start) / MIB, 64)


def _config(size: Size, number: int) -> Config:
    backbones = ["resnet18", "convnext_atto", "tf_efficientnet_lite0"]
    finetune: dict[str, Any] = {"epochs": number % 2 if number else 1}
    finetune |= {"batch_size": 16 * (1 + number % 4), "blocks": "all" if number % 3 else 2}
    return Config.model_validate(
        {
            "name": "memory",
            "data": {
                "source": "typefaces",
                "image_size": size.of(96, 32),
                "typefaces": {"train": 5, "test": 1, "size": size.of(112, 40)},
            },
            "model": {
                "backbone": "test_efficientnet" if size.tiny else backbones[number % 3],
                "weights": "none",
                "latent_dim": size.of(256, 8) * 2 ** (number % 5),
                "groups": {"method": "random", "count": 5},
            },
            "training": {
                "device": size.device.type,
                "ema": 0.5 if number % 2 else 0.0,
                "head": {"epochs": 1},
                "finetune": finetune,
            },
        }
    )


def _allocated(size: Size) -> int:
    """Bytes on the GPU; without one, bytes of all tensors that are alive."""
    gc.collect()
    if size.device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _peak(size: Size) -> int:
    if size.device.type != "cuda":
        return 0
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak
