"""Where a worker process is, for the record of what was busy when."""

from __future__ import annotations

import os
from typing import Any

import ray


def place() -> dict[str, Any]:
    """As part of a result: where the process is, and which it is.

    Returns:
        ``place_node`` (Ray's id), ``place_gpus`` (ids between commas), ``place_worker`` (process).
    """
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return {
        "place_node": context.get_node_id(),
        "place_gpus": ",".join(gpus),
        "place_worker": os.getpid(),
    }
