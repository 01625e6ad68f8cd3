"""Optimiser steps that are timed where trials will run."""

from __future__ import annotations

from pathlib import Path

import torch

from gsfl_tune.search.ray_tune.location import machine
from gsfl_tune.search.ray_tune.timed_steps import timed_steps
from gsfl_tune.training import Workspace
from gsfl_tune.training.pricing import ASSUMED
from tests.search.experiments import experiment


def test_steps_are_of_this_machine_and_leave_the_threads_as_they_were(cache_dir: Path) -> None:
    config = experiment().defaults()
    workspace = Workspace.open(config.data, cache_dir=cache_dir)
    threads = torch.get_num_threads()
    (found,) = timed_steps(config, workspace, gpu=False, threads=threads + 1, least=0.01)
    assert torch.get_num_threads() == threads
    assert found.machine == ASSUMED + machine(False)
    assert (found.work.stage, found.work.steps) == ("head", 1)
    assert found.epochs >= 1
    assert found.seconds > 0
