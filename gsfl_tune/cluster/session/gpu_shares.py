"""How large a share of a GPU a trial asks for, so that no GPU idles while others are shared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_EPSILON = 1e-6
# Ray counts resources in ten-thousandths.
_PRECISION = 10_000


def capacity(cpu: float, gpu: float, node: Mapping[str, float]) -> int:
    """Returns how many trials a node holds.

    Args:
        cpu: CPU cores a trial.
        gpu: GPUs a trial; below 1 a share of one.
        node: Its resources as Ray has them (``CPU``, ``GPU``).
    """
    by_cpu = math.floor(node.get("CPU", 0.0) / cpu + _EPSILON)
    if gpu == 0:
        return by_cpu
    whole = node.get("GPU", 0.0)
    if gpu < 1:
        # Shares of one GPU: what is left of each is lost.
        by_gpu = int(whole) * math.floor(1 / gpu + _EPSILON)
    else:
        by_gpu = math.floor(whole / gpu + _EPSILON)
    return min(by_cpu, by_gpu)


def spread(
    cpu: float, share: float, nodes: Sequence[Mapping[str, float]], limit: int
) -> tuple[float, int]:
    """Returns the share of a GPU that trials really ask for, and how many run at once.

    Ray fills one GPU before it looks at the next: four trials of a third each go to two GPUs as
    3 + 1. It cannot do that where the share is as large as the number of trials allows (here a
    half). Where even then a GPU would idle that a trial could have to itself, as with five trials
    on four GPUs (2 + 2 + 1 + 0), fewer run at once, as many on each GPU.

    Args:
        cpu: CPU cores a trial.
        share: Of a GPU, the least that a trial can do with; below 1.
        nodes: Resources of each node as Ray has them.
        limit: Most trials at once.

    Returns:
        Share, at least the given one, and number of trials, at most the limit; 0 where no node
        holds one.
    """
    room = [(int(node.get("GPU", 0.0)), capacity(cpu, 0, node)) for node in nodes]
    usable = sum(min(gpus, by_cpu) for gpus, by_cpu in room)
    if usable == 0:
        return share, 0
    most = min(math.floor(1 / share + _EPSILON), max(by_cpu for _, by_cpu in room))
    best = (1, min(limit, usable))
    for together in range(2, most + 1):
        held = [min(by_cpu, gpus * together) for gpus, by_cpu in room]
        count = min(limit, sum(held))
        even = _in_use(held, count, together) >= min(count, usable)
        if even and count > best[1]:
            best = (together, count)
    together, count = best
    return max(share, math.floor(_PRECISION / together) / _PRECISION), count


def _in_use(held: Sequence[int], count: int, together: int) -> int:
    """The fewest GPUs that `count` trials occupy when they are packed as tightly as can be."""
    groups = [together] * sum(trials // together for trials in held)
    groups += sorted((trials % together for trials in held), reverse=True)
    used = 0
    for group in groups:
        if count <= 0:
            break
        used += group > 0
        count -= group
    return used
