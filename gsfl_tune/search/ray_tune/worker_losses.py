"""Failures of workers: their cause, read from Ray's texts, and whether to start again."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

# A trial of a week on spot machines loses many nodes. A trial that brings its node down every time
# must still end.
NODES_PER_TRIAL = 100
# Number of such deaths after which memory is suspected.
SILENT_DEATHS = 2

# Name of `gsfl_tune.training.gpu_memory.WorkerSpent`, which comes with torch.
_SPENT = "WorkerSpent"
# Error of `gsfl_tune.search.workers.rank_pool`: another process of the trial was killed.
_RANK = re.compile(r"RankLost: (rank \d+, a process of the trial, died \(signal \d+\))")
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
    if rank := _RANK.search(reason):
        return Failure("process", rank[1])
    return Failure("spent" if _SPENT in reason else "error", reason)


class Losses:
    """Counts failures of trials or retrains.

    The loss of a node is not a failure of the trial and is counted separately.

    Args:
        max_failures: How often a trial is started again after a crash or an error of its own.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._counts: Counter[tuple[int, bool]] = Counter()
        self._deaths: Counter[int] = Counter()

    def wants_less(self, number: int, failure: Failure) -> bool:
        """Returns whether memory may be the cause: its process died silently once more.

        The kernel, or the limit of a container, ends a process as `kill -9` does.
        """
        return failure.kind == "process" and self._deaths[number] >= SILENT_DEATHS

    def again(self, number: int, failure: Failure) -> str | None:
        """Counts a loss.

        Args:
            number: Number of the trial or retrain.
            failure: What happened.

        Returns:
            Message for the user when it is started again; None when it must not be.
        """
        if failure.kind == "spent":
            # The process refused the trial, which has not begun.
            return f"a worker process was started anew: {failure.reason}"
        node = failure.kind == "node"
        self._counts[number, node] += 1
        self._deaths[number] += failure.kind == "process"
        count, limit = self._counts[number, node], NODES_PER_TRIAL if node else self._max_failures
        if count > limit:
            return None
        times = "" if node else f" ({count} of at most {limit} times)"
        return f"{failure.reason}; it is started again{times}"
