"""Ctrl-C and SIGTERM: running trials save at their next epoch, and the run can be resumed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from gsfl_tune.activity import Activity, begin, end
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import RunDirectory

GRACE_SECONDS = 8.0
# Seconds between SIGTERM and SIGKILL, as set by the launcher of a driver or by Ray for its jobs.
STOP_VARIABLES = ("GSFL_TUNE_STOP_SECONDS", "RAY_JOB_STOP_WAIT_TIME_S")
# Share of that time for trials; the driver needs the rest to end cleanly.
_SHARE = 0.8


class Interrupt:
    """Records whether this run was asked to stop. One object serves a whole run.

    Workers see a request as the file ``RUN/.interrupt``.

    Args:
        run: The run.
        grace: Seconds that trials have to end an epoch and save. Then they are killed, and a
            resume continues from their last checkpoint. A second signal kills them at once.
            Default: 8, or most of the time that the environment grants.
    """

    def __init__(self, run: RunDirectory, grace: float | None = None) -> None:
        self._file = run.interrupt_file
        self._grace = _grace() if grace is None else grace
        self._requested = False
        self._deadline: float | None = None
        self._reasons: list[str] = []
        self._said: _Stopping | None = None
        self._listeners = 0
        self._file.unlink(missing_ok=True)

    @property
    def requested(self) -> bool:
        """Returns whether the run is to stop."""
        return self._requested

    @property
    def stopping(self) -> bool:
        """Returns whether running trials are to stop and no more may begin."""
        return self._deadline is not None

    @property
    def overdue(self) -> bool:
        """Returns whether to stop waiting for trials that have not saved."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def request(self) -> None:
        """Asks the run to stop; a second call stops it at once."""
        if self._requested:
            self._deadline = time.monotonic()
            self._say("asked twice")
            return
        self._requested = True
        self._end(self._grace)
        self._say("asked to stop")

    def end_trials(self) -> None:
        """Stops the running trials as `request` does, but not the run; see `reopen`."""
        self._end(min(self._grace, GRACE_SECONDS))
        self._say("the search is over")

    def _say(self, why: str) -> None:
        """Shows at once, and then every few seconds, what the run waits for."""
        self._hush()
        if self._listeners:
            self._said = _Stopping(why, urgent=True, interrupt=self)
            begin(self._said)

    def _hush(self) -> None:
        if self._said is not None:
            end(self._said)

    @property
    def seconds(self) -> float:
        """Returns the seconds that trials still have to save."""
        return 0.0 if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _end(self, grace: float) -> None:
        if self._deadline is not None:
            return
        self._deadline = time.monotonic() + grace
        # On a full disk the file is missing: trials are then ended at the deadline.
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch()

    def reopen(self) -> None:
        """Reverts `end_trials` once the trials have ended, unless the run itself is to stop."""
        if not self._requested:
            self._deadline = None
            self._hush()
            self.clear()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answers SIGINT and SIGTERM with `request`, in the main thread; may be nested.

        In other threads (a notebook's worker thread) signals keep their handlers.
        """
        self._listeners += 1
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM):
                before[each] = signal.signal(each, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._listeners -= 1
            if not self._listeners:
                self._hush()

    def give_up(self, reason: str) -> None:
        """Stops the run because the machine failed; the first reason counts."""
        self._reasons.append(reason)
        if not self.requested:
            self.request()

    def raise_trouble(self) -> None:
        """Raises the reason why the run gave up, if it did.

        Raises:
            EnvironmentProblem: With the reason.
        """
        if self._reasons:
            raise EnvironmentProblem(
                f"{self._reasons[0]}\nthe search was stopped and running trials are kept; fix "
                "this problem, then continue with --resume"
            )

    def clear(self) -> None:
        """Removes the file of the request; the run ended cleanly."""
        self._file.unlink(missing_ok=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request()


@dataclass(eq=False)
class _Stopping(Activity):
    """Shows that the driver waits for running trials to save and end."""

    interrupt: Interrupt | None = None

    def text(self) -> str:
        """Returns the reason, what is awaited, and the longest wait."""
        assert self.interrupt is not None
        left = self.interrupt.seconds
        if left > 0:
            return f"{self.what}: running trials save first, which may take {left:.0f} s more"
        return f"{self.what}: ending trials that have not saved, and their processes"


def _grace() -> float:
    for name in STOP_VARIABLES:
        with suppress(KeyError, ValueError):
            return max(GRACE_SECONDS, _SHARE * float(os.environ[name]))
    return GRACE_SECONDS
