"""The record of what a process does, written by working code and read by displays.

A write is an assignment, so that a loop can report its progress after every batch. Nothing is sent
from here: a display, or a worker's pulse, reads the record now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Longer activities also show their duration.
_SHOW_SECONDS = 2.0

# The innermost activity is last. Changes are single list operations, which no thread can see half
# done. A signal handler changes it too, and must not wait for a lock.
_stack: list[Activity] = []


@dataclass(eq=False)
class Activity:
    """Describes one activity.

    Attributes:
        what: Description, such as ``computing features``.
        total: Amount of work, None if unknown.
        unit: Unit of `total`: ``images``.
        done: Amount done.
        urgent: Whether it is shown at once, and before all others.
        before: For an epoch: number of earlier epochs of the whole training.
        begun: Time of its start, by `time.monotonic`.
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
        """Returns trained epochs, with the fraction of the current one; None outside of epochs."""
        if self.before is None or not self.total:
            return None
        return self.before + min(1.0, self.done / self.total)

    @property
    def rest(self) -> float | None:
        """Returns the seconds left at its speed so far; None if unknown."""
        if not self.total or self.done <= 0:
            return None
        each = (time.monotonic() - self.begun) / self.done
        return max(0.0, each * (self.total - self.done))

    def text(self) -> str:
        """Returns a text such as ``computing features: 128/672 images, 0:12``."""
        text = self.what
        if self.total is not None:
            done = min(self.done, self.total)
            text = f"{text}: {done:,}/{self.total:,} {self.unit}".rstrip()
        seconds = time.monotonic() - self.begun
        return text if seconds < _SHOW_SECONDS else f"{text}, {duration(seconds)}"


def begin(one: Activity) -> Activity:
    """Begins an activity that `end` ends, for code without a block."""
    _stack.append(one)
    return one


def end(one: Activity) -> None:
    """Ends an activity; a second call does nothing."""
    if one in _stack:
        _stack.remove(one)


@contextmanager
def activity(what: str, total: int | None = None, unit: str = "") -> Iterator[Activity]:
    """Records an activity during the block.

    Args:
        what: Description, in words.
        total: Amount of work; the block counts `Activity.done` up to it.
        unit: Unit of `total`.
    """
    one = begin(Activity(what, total, unit))
    try:
        yield one
    finally:
        end(one)


def current() -> Activity | None:
    """Returns the innermost activity, or an urgent one if there is any; None for nothing."""
    stack = list(_stack)
    urgent = [one for one in stack if one.urgent]
    shown = urgent or stack
    return shown[-1] if shown else None


def duration(seconds: float) -> str:
    """Formats seconds as ``1:02:03`` or ``2:03``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
