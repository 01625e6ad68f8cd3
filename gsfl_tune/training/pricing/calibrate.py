"""Measures how fast this machine trains and how fast it runs a frozen backbone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gsfl_tune.activity import activity
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.loader import eval_batches
from gsfl_tune.experiment.config import Config
from gsfl_tune.heap import give_back
from gsfl_tune.models.frozen_forward import FrozenForward, Precision
from gsfl_tune.training.caches.engines import fast_forward
from gsfl_tune.training.caches.features import all_cores
from gsfl_tune.training.pricing.costs import Measured
from gsfl_tune.training.pricing.one_step import of_a_process
from gsfl_tune.training.stages import STAGE_KINDS
from gsfl_tune.training.training import Training
from gsfl_tune.training.workspace import Workspace

# Seconds of steps per stage.
_SECONDS = 2.0
# A first step of so many times these is long.
_LONG = 6
_FORWARD_IMAGES = 128


def measure_steps(
    config: Config, workspace: Workspace, workers: int = 1, *, least: float = _SECONDS
) -> list[Measured]:
    """Takes optimiser steps of every stage on random inputs of full size.

    Groups are left out: they take no time in a step, and finding them needs all features. All
    blocks are trained that are trained in the end, on images of full size.

    Where several processes divide batches, this one takes its share of them, and its steps are
    those of whole batches. What the processes exchange is not timed.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        workers: Number of processes of a training.
        least: Seconds of steps per stage. A first step that takes several times as long is the only
            one, though it does more than those after it.

    Returns:
        One measurement a stage; its work is that of one step, and `epochs` counts steps.
    """
    groups = config.model.groups.model_copy(update={"method": "single", "count": 1})
    model = config.model.model_copy(update={"groups": groups})
    config = config.model_copy(update={"model": model})
    whole, config = config, of_a_process(config, workers)
    classes = workspace.dataset.class_count
    found = []
    with tempfile.TemporaryDirectory() as directory:
        trained = Training(config, workspace, Path(directory))
        for spec in trained.timeline.stages:
            kind, context = STAGE_KINDS[spec.kind], trained.context.of_stage(spec)
            context.config = _in_full(context.config)
            stage = kind(context, spec.name)
            with activity(f"{spec.name} steps"):
                seconds, steps = _timed(stage.rehearse, trained.device, least)
            batch = getattr(whole.training, spec.name).batch_size
            work = kind.work(_in_full(spec.seen_by(whole)), batch, 0, classes)
            found.append(Measured(replace(work, stage=spec.name, epochs=1), steps, seconds))
        del trained, context, stage
    # The driver measures, and lives on through the search.
    give_back(collect=False)
    return found


def _in_full(config: Config) -> Config:
    """Trains from the beginning what is trained in the end, on images of full size."""
    finetune = config.training.finetune.model_copy(update={"unfreeze": 0, "start_size": 1.0})
    # A step is one of as many features, whatever they are.
    own = config.training.head
    alone = own.generate.model_copy(update={"share": 0.0})
    head = own.model_copy(update={"generate": alone})
    training = config.training.model_copy(update={"finetune": finetune, "head": head})
    return config.model_copy(update={"training": training})


def measure_frozen(
    config: Config, workspace: Workspace, precision: Precision | None = None
) -> tuple[float, float]:
    """Runs the frozen backbone over some images, on all cores, as features are computed.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        precision: Precision of the computation; default: that of the features.

    Returns:
        Images per second, and the seconds to make the fast copy of the backbone.
    """
    backbone, device = workspace.backbone(config), workspace.device
    size, dataset = config.data.image_size, workspace.dataset
    asked = config.model.feature_precision
    images = len(dataset.pool) + len(dataset.test)
    started = time.perf_counter()
    with all_cores(device), torch.inference_mode():
        with activity(f"making the fast copy of {config.model.extractor}"):
            forward: FrozenForward
            if precision is None and asked == "int8":
                forward = workspace.extractor(config).forward_for(images, workspace.cache_dir)
            else:
                forward = fast_forward(
                    backbone,
                    (3, size, size),
                    precision=precision or ("bf16" if asked == "bf16" else "fp32"),
                    name=f"{backbone.name}, {backbone.reads}",
                    images=images,
                    device=device,
                    cache_dir=workspace.cache_dir,
                ).to(device)
        making = time.perf_counter() - started
        pool = workspace.dataset.pool
        index = np.arange(min(len(pool), _FORWARD_IMAGES))

        def run() -> None:
            for batch in eval_batches(
                pool,
                index,
                64,
                transform=lambda squares: center_crop(squares, size, *backbone.preprocessing),
                device=device,
            ):
                forward(batch.inputs.contiguous(memory_format=torch.channels_last))

        with activity(f"images through {config.model.extractor}"):
            seconds, runs = _timed(run, device, _SECONDS)
    return runs * len(index) / seconds, making


def _timed(act: Callable[[], None], device: torch.device, least: float) -> tuple[float, int]:
    """Returns seconds and repetitions, at least two, after a warm-up that is not long itself."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    started, count = time.perf_counter(), 0
    act()
    wait()
    first = time.perf_counter() - started
    if first >= _LONG * least:
        return first, 1
    started = time.perf_counter()
    while count < 2 or time.perf_counter() - started < least:
        act()
        wait()
        count += 1
    return time.perf_counter() - started, count
