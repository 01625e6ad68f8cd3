"""Waiting for room on a cluster that grows: one with an autoscaler, or whose nodes still start."""

from __future__ import annotations

import time

_POLL_SECONDS = 0.5


def wait_for_room(cpu: float, gpu: float, trials: int, seconds: float) -> None:
    """Asks Ray for room for trials and waits until it is there, or the time is over.

    What is asked for are placement groups, one a trial: an autoscaler sees them and starts nodes
    for them, Ray says itself when they fit, and they go with this process, however it ends. They
    are given back at the end: a node is idle for minutes before an autoscaler takes it away.

    Args:
        cpu: CPU cores a trial.
        gpu: GPUs a trial.
        trials: For how many at once.
        seconds: The longest wait.
    """
    from ray.util import placement_group, placement_group_table, remove_placement_group

    bundle = {"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu}
    deadline = time.monotonic() + seconds
    groups = []
    try:
        for _ in range(trials):
            groups.append(placement_group([bundle]))
        pending = groups
        while pending and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            pending = [
                group for group in pending if placement_group_table(group)["state"] != "CREATED"
            ]
    finally:
        for group in groups:
            remove_placement_group(group)
