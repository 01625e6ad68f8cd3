"""The record of what a process does: written by whoever does it, read by whoever shows it.

Writing is an assignment, so that a loop can say after every batch how far it is. Nothing is sent
from here: a display, or a worker's pulse, looks now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Something that takes longer shows for how long it has been going on.
_SHOW_SECONDS = 2.0

# The innermost one is last. Changes are single operations on a list, which no thread can see
# half done; a signal handler changes it too, and must not wait for a lock.
_stack: list[Activity] = []


@dataclass(eq=False)
class Activity:
    """Something that is being done.

    Attributes:
        what: In words: ``computing features``.
        total: How much there is to do, None if nobody knows.
        unit: Of `total`: ``images``.
        done: How much of it is done.
        urgent: Whether it is shown at once, and in front of all others.
        before: Of an epoch: epochs of the whole training before it.
        begun: When, by `time.monotonic`.
    """

    what: str
    total: int | None = None
    unit: str = ""
    done: int = 0
    urgent: bool = False
    before: int | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def epochs(self) -> float | None:
        """Epochs of the training, with the share of this one that is done; None for no epoch."""
        if self.before is None or not self.total:
            return None
        return self.before + min(1.0, self.done / self.total)

    @property
    def rest(self) -> float | None:
        """Seconds that are left of it, at the speed that it had; None where nobody knows."""
        if not self.total or self.done <= 0:
            return None
        each = (time.monotonic() - self.begun) / self.done
        return max(0.0, each * (self.total - self.done))

    def text(self) -> str:
        """``computing features: 128/672 images, 0:12``."""
        text = self.what
        if self.total is not None:
            done = min(self.done, self.total)
            text = f"{text}: {done:,}/{self.total:,} {self.unit}".rstrip()
        seconds = time.monotonic() - self.begun
        return text if seconds < _SHOW_SECONDS else f"{text}, {duration(seconds)}"


def begin(one: Activity) -> Activity:
    """Begins what `end` ends; for what no block surrounds."""
    _stack.append(one)
    return one


def end(one: Activity) -> None:
    """Ends it; a second call does nothing."""
    if one in _stack:
        _stack.remove(one)


@contextmanager
def activity(what: str, total: int | None = None, unit: str = "") -> Iterator[Activity]:
    """Says that the block does something.

    Args:
        what: What, in words.
        total: How much there is to do; the block counts `Activity.done` up to it.
        unit: Of `total`.
    """
    one = begin(Activity(what, total, unit))
    try:
        yield one
    finally:
        end(one)


def current() -> Activity | None:
    """What is being done now: the innermost, but an urgent one in any case; None for nothing."""
    stack = list(_stack)
    urgent = [one for one in stack if one.urgent]
    shown = urgent or stack
    return shown[-1] if shown else None


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
