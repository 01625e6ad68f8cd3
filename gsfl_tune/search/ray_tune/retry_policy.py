"""Whether a trial or a retrain whose worker was lost is started again, and how."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gsfl_tune.search.ray_tune.worker_losses import Failure
from gsfl_tune.training.out_of_memory import STILL_TOO_MUCH

# A trial of a week on spot machines loses many nodes. A trial that brings its node down every time
# must still end.
NODES_PER_TRIAL = 100
# Number of such deaths after which memory is suspected.
SILENT_DEATHS = 2

RAN_OUT = "ran out of memory"
_HALVES = "it continues with batches in two halves"
_PERHAPS = "lost its process twice, perhaps for lack of memory"


@dataclass(frozen=True)
class Retry:
    """Says what happens after a failure.

    Attributes:
        failure: The failure; the reason that stays where it is not started again.
        again: Whether it is started again.
        notice: Message for the user about the new start; None without one.
        halved: Why it goes on with half the batch, in words; None where it does not.
    """

    failure: Failure
    again: bool
    notice: str | None = None
    halved: str | None = None


class RetryPolicy:
    """Counts failures of trials or retrains, and decides about the next start.

    The loss of a node is not a failure of the trial and is counted separately. Want of memory is
    not counted: it is met by half the batch, once.

    Args:
        max_failures: How often one is started again after a crash or an error of its own.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._counts: Counter[tuple[int, bool]] = Counter()
        self._deaths: Counter[int] = Counter()

    def decide(self, number: int, failure: Failure, *, pieces: int = 1) -> Retry:
        """Decides about a failure, and counts it.

        Args:
            number: Number of the trial or retrain.
            failure: What happened.
            pieces: Number of parts of a batch that it trained with.
        """
        if failure.kind == "memory":
            if pieces > 1:
                reason = f"{STILL_TOO_MUCH}: {failure.reason}"
                return Retry(Failure("error", reason), again=False)
            return Retry(failure, again=True, halved=RAN_OUT)
        if failure.kind == "spent":
            # The process refused the trial, which has not begun.
            notice = f"a worker process was started anew: {failure.reason}"
            return Retry(failure, again=True, notice=notice)
        node = failure.kind == "node"
        self._counts[number, node] += 1
        self._deaths[number] += failure.kind == "process"
        count, limit = self._counts[number, node], NODES_PER_TRIAL if node else self._max_failures
        if count > limit:
            return Retry(failure, again=False)
        times = "" if node else f" ({count} of at most {limit} times)"
        # The kernel, or the limit of a container, ends a process silently, as `kill -9` does.
        silent = failure.kind == "process" and self._deaths[number] >= SILENT_DEATHS
        return Retry(
            failure,
            again=True,
            notice=f"{failure.reason}; it is started again{times}",
            halved=_PERHAPS if silent and pieces == 1 else None,
        )


def halved_notice(name: str, why: str = RAN_OUT) -> str:
    """Tells a user that a trial or a retrain goes on with half the batch.

    Args:
        name: Name of the trial or retrain, as a user sees it.
        why: As of `Retry.halved`.
    """
    return f"{name} {why}: {_HALVES}"


def was_halved_notice(name: str) -> str:
    """Tells a user that a retrain that has ended went on with half the batch by itself.

    Args:
        name: Name of the retrain, as a user sees it.
    """
    return f"{name} {RAN_OUT}: it was trained with batches in two halves"
