"""Why a worker came to nothing, read from Ray's text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Name of `gsfl_tune.training.gpu_memory.WorkerSpent`, which comes with torch.
_SPENT = "WorkerSpent"
# Error of `gsfl_tune.search.workers.rank_pool`: another process of the trial was killed.
_RANK = re.compile(
    r"RankLost: (rank \d+, a process of the trial, died \((?:signal \d+|its worker was ended)\))"
)
_RANK_NODE = re.compile(r"RankLost: (rank \d+, a process of the trial, was lost with its node)")
_DEAD = (
    "ActorDiedError",
    "actor died",
    "actor is dead",
    "ActorUnavailableError",
    "is unavailable",
    "WorkerCrashedError",
    "NodeDiedError",
)
_NODE = ("node has died", "node died", "node is dead", "NodeDiedError", "is unavailable")

# Ray's text when its memory monitor ended a process.
_MEMORY = "due to the node running low on memory"
_USED = re.compile(r"was ([0-9.]+ ?[A-Z]*B) used / ([0-9.]+ ?[A-Z]*B) limit")

Kind = Literal["node", "process", "memory", "error", "spent"]


@dataclass(frozen=True)
class Failure:
    """Describes the failure of a worker.

    Attributes:
        kind: ``node``: its machine or raylet was lost, or cannot be reached; ``process``: only
            it or another process of the trial was killed; ``memory``: Ray ended it as its node
            ran low; ``error``: it raised; ``spent``: it refused a trial before the start.
        reason: One line for a user.
    """

    kind: Kind
    reason: str


def failure(text: str) -> Failure:
    """Parses Ray's text of a failure.

    Args:
        text: Ray's text; of several failures of one trial, oldest first, the last one counts.
    """
    last = text.rpartition("Failure # ")[2]
    if _MEMORY in last:
        used = _USED.search(last)
        more = f" ({used[1]} of {used[2]} used)" if used else ""
        return Failure(
            "memory", f"the worker process was ended as its node ran low on memory{more}"
        )
    if any(word in last for word in _DEAD) and "ray::" not in last:
        if any(word in last for word in _NODE):
            return Failure("node", "its node was lost")
        return Failure("process", "the worker process died (killed, out of memory or crashed)")
    # The exception is the last line without indent; indented details may follow it.
    flush = [line for line in last.splitlines() if line.strip() and not line[0].isspace()]
    if not flush:
        return Failure("process", "the worker process died")
    reason = flush[-1].strip()
    if rank := _RANK_NODE.search(reason):
        return Failure("node", rank[1])
    if rank := _RANK.search(reason):
        return Failure("process", rank[1])
    return Failure("spent" if _SPENT in reason else "error", reason)
