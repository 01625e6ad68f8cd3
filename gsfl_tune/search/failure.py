"""Why a worker came to nothing, read from what Ray says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Name of `gsfl_tune.search.memory.WorkerSpent`, which comes with torch.
_SPENT = "WorkerSpent"
_DEAD = (
    "ActorDiedError",
    "actor died",
    "actor is dead",
    "ActorUnavailableError",
    "is unavailable",
    "WorkerCrashedError",
    "NodeDiedError",
)
_NODE = ("node has died", "node died", "node is dead", "node failure", "NodeDiedError")

Kind = Literal["node", "process", "error", "spent"]


@dataclass(frozen=True)
class Failure:
    """What happened to a worker.

    Attributes:
        kind: ``node``: its machine or raylet was lost, or cannot be reached; ``process``: it
            died alone; ``error``: it raised; ``spent``: it refused a trial before it began.
        reason: One line for a user.
    """

    kind: Kind
    reason: str


def failure(text: str) -> Failure:
    """Reads what Ray wrote of a failure.

    Args:
        text: Ray's text; of several failures of one trial, oldest first, the last one counts.
    """
    last = text.rpartition("Failure # ")[2]
    if any(word in last for word in _DEAD) and "ray::" not in last:
        if any(word in last for word in (*_NODE, "is unavailable")):
            return Failure("node", "its node was lost")
        return Failure("process", "the worker process died (killed, out of memory or crashed)")
    # The exception is the last line that is not indented; details may follow it, indented.
    flush = [line for line in last.splitlines() if line.strip() and not line[0].isspace()]
    if not flush:
        return Failure("process", "the worker process died")
    reason = flush[-1].strip()
    return Failure("spent" if _SPENT in reason else "error", reason)
