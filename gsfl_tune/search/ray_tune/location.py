"""The location of a worker process, for records of utilisation."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import ray

from gsfl_tune.cores import model_name


def place() -> dict[str, Any]:
    """Returns the location and identity of the process, as part of a result.

    Returns:
        ``place_node`` (Ray's id), ``place_gpus`` (ids separated by commas), ``place_worker``
        (process), ``place_machine`` (kind of GPU or CPU).
    """
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return {
        "place_node": context.get_node_id(),
        "place_gpus": ",".join(gpus),
        "place_worker": os.getpid(),
        "place_machine": machine(bool(gpus)),
    }


@cache
def machine(gpu: bool) -> str:
    """Returns the kind of machine of this process: name of its GPU, else of its CPU."""
    if gpu:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    return model_name()
