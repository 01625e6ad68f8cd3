"""The driver's estimate of the time left, in a file that others read while it runs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from gsfl_tune.run.atomic import read_json, write_json
from gsfl_tune.run.layout import RunDirectory
from gsfl_tune.run.lock import holder


@dataclass(frozen=True)
class RunningEstimate:
    """Holds what a driver expects of its run.

    Attributes:
        phase: What it does: ``search``, ``control``, or the title of the trainings at the end.
        done: Number of trials or trainings that ended.
        total: Their number; None where time decides.
        seconds: Seconds left until the tested bundle, at `at`; None while unknown.
        at: When it was estimated, seconds since 1970.
    """

    phase: str
    done: int
    total: int | None
    seconds: float | None
    at: float

    @property
    def left(self) -> float | None:
        """Returns the seconds left now; None while unknown."""
        return None if self.seconds is None else max(0.0, self.seconds - (time.time() - self.at))

    def write(self, run: RunDirectory) -> None:
        """Writes it to a run directory, in place of the last one."""
        write_json(run.estimate_file, asdict(self))


def read_estimate(run: RunDirectory) -> RunningEstimate | None:
    """Returns the present estimate of a run; None without a driver that works on it."""
    try:
        found = RunningEstimate(**read_json(run.estimate_file))
    except (OSError, ValueError, TypeError):
        return None
    return None if holder(run) is None else found
