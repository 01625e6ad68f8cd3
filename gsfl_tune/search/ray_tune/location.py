"""Where a worker process is, for the record of what was busy when."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from typing import Any

import ray


def place() -> dict[str, Any]:
    """As part of a result: where the process is, and which it is.

    Returns:
        ``place_node`` (Ray's id), ``place_gpus`` (ids between commas), ``place_worker`` (process),
        ``place_machine`` (kind of GPU or CPU).
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
    """Kind of machine of this process: name of its GPU, else of its CPU."""
    if gpu:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
