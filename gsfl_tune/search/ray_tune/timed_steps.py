"""Optimiser steps that are timed where trials will run, as first prices of their epochs."""

from __future__ import annotations

from dataclasses import replace

import torch

from gsfl_tune.experiment.config import Config
from gsfl_tune.search.ray_tune.location import machine
from gsfl_tune.training import Workspace
from gsfl_tune.training.pricing import ASSUMED, Measured
from gsfl_tune.training.pricing.calibrate import measure_steps


def timed_steps(
    config: Config,
    workspace: Workspace,
    *,
    gpu: bool,
    threads: int,
    workers: int = 1,
    least: float,
) -> list[Measured]:
    """Times optimiser steps of every stage on this machine.

    A step on random inputs is no training: trials of this machine take the place of these numbers.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        gpu: Whether trials have a GPU.
        threads: CPU threads of one process of a trial.
        workers: Number of processes of a trial.
        least: Seconds of steps per stage.

    Returns:
        One measurement a stage; `epochs` counts steps.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = measure_steps(config, workspace, workers, least=least)
    finally:
        torch.set_num_threads(before)
    return [replace(each, machine=ASSUMED + machine(gpu)) for each in found]
