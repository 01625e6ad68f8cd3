"""Background updates of trackers: the search never waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.results import Results, read_results
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.observers.tracking._base import RunInfo, Tracker, TrialRecord
from gsfl_tune.search.samplers.spaces import run_spaces, unchecked
from gsfl_tune.search.study.journal import read_studies
from gsfl_tune.search.study.study import Study

# Running trials are checked this often, besides at rungs.
_LOOK_SECONDS = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
# Seconds that an ended search waits for each tracker to catch up.
PATIENCE = 30.0


class Tracking(Watcher):
    """Sends a search to trackers.

    Each tracker has a thread of its own and a list of trials to update. After a failure the update
    is retried, and the user gets one message.

    Args:
        trackers: The trackers.
        run: The run directory.
        notice: Called in the search's thread with messages for the user.
        patience: Seconds that the end of the search waits for a tracker.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        run: RunDirectory,
        notice: Callable[[str], None],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._run = run
        self._notice = notice
        self._patience = patience
        self._followers = [_Follower(tracker, run) for tracker in trackers]
        self._study: Study | None = None
        self._due = 0.0

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Marks every trial for an update: a study begins or continues."""
        self._study = study
        for follower in self._followers:
            follower.settled = False
        self._tell(*(trial.number for trial in study.trials() if trial.state.name != "WAITING"))
        for follower in self._followers:
            follower.start()

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Marks a trial that was handed out."""
        self._tell(number)

    def rung(self, number: int, k: int, value: float) -> None:
        """Marks a trial with new epochs."""
        self._tell(number)

    def ended(self, number: int) -> None:
        """Marks a trial that ended."""
        self._tell(number)

    def tick(self) -> None:
        """Passes on messages of the trackers, and checks running trials now and then."""
        self._pass_on()
        if self._study is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_SECONDS
            self._tell(*self._study.running())

    def finish(self, *, interrupted: bool) -> None:
        """Marks trials that ran elsewhere: their last epochs may have arrived only now."""
        for follower in self._followers:
            follower.settled = True
        if self._study is not None:
            trials = self._study.trials()
            self._tell(*(trial.number for trial in trials if trial.state.name != "WAITING"))
        self._study = None
        self._pass_on()

    def close(self, results: Results | None = None) -> None:
        """Waits for a limited time until every update is sent.

        Args:
            results: Results of the search, if it completed.
        """
        deadline = time.monotonic() + self._patience
        for follower in self._followers:
            follower.stop(results)
        for follower in self._followers:
            follower.join(max(0.0, deadline - time.monotonic()))
        self._pass_on()

    def _tell(self, *numbers: int) -> None:
        if self._study is None or not self._followers:
            return
        # Optuna's objects may change under a thread; a record does not.
        records = [
            TrialRecord.of(self._study.name, self._study.trial(number), self._study.space)
            for number in numbers
        ]
        for follower in self._followers:
            follower.tell(records)

    def _pass_on(self) -> None:
        for follower in self._followers:
            for text in follower.news():
                self._notice(text)


class _Follower:
    """Runs one tracker in its thread, with a list of updates."""

    def __init__(self, tracker: Tracker, run: RunDirectory) -> None:
        self._tracker = tracker
        self._run = run
        self._changed = threading.Condition()
        self._waiting: dict[str, TrialRecord] = {}
        self._news: list[str] = []
        self._told: dict[str, tuple[str, int]] = {}
        self._opened = False
        self._stopping = False
        self._results: Results | None = None
        self._complained = False
        # Whether all files of trials have arrived from the nodes where they ran.
        self.settled = False
        self._thread = threading.Thread(
            target=self._follow, name=f"tracking-{tracker.name}", daemon=True
        )

    def start(self) -> None:
        """Starts the thread, once."""
        if self._thread.ident is None:
            self._thread.start()

    def tell(self, records: Sequence[TrialRecord]) -> None:
        """Adds trials that may have new data."""
        with self._changed:
            for record in records:
                self._waiting[record.key] = record
            self._changed.notify()

    def stop(self, results: Results | None) -> None:
        """Ends the thread as soon as every update is sent."""
        with self._changed:
            self._stopping = True
            self._results = results
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Waits for the thread, and reports updates that were not sent."""
        if self._thread.ident is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._complain("it did not keep up")

    def news(self) -> list[str]:
        """Returns messages for the user, each once."""
        with self._changed:
            news, self._news = self._news, []
        return news

    def _follow(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            record = self._next()
            try:
                if not self._opened:
                    self._tracker.open(_info(self._run))
                    self._opened = True
                if record is None:
                    if self._results is not None:
                        self._tracker.conclude(self._results)
                    self._tracker.close()
                    return
                self._update(record)
                pause = _FIRST_PAUSE
            except Exception as error:  # whatever a client raises, the search goes on
                self._complain(_reason(error))
                with self._changed:
                    if record is not None:
                        self._waiting.setdefault(record.key, record)
                    if self._stopping:
                        return
                    self._changed.wait_for(lambda: self._stopping, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _next(self) -> TrialRecord | None:
        """Returns the trial that has waited longest; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def _update(self, record: TrialRecord) -> None:
        epochs = EpochLog(self._run.trial(record.study, record.number) / EPOCHS_FILE).read()
        if record.done and record.reached and not epochs and not self.settled:
            return
        now = (record.state, len(epochs))
        if self._told.get(record.key) != now:
            self._tracker.trial(record, epochs)
            self._told[record.key] = now

    def _complain(self, reason: str) -> None:
        if self._complained:
            return
        self._complained = True
        for secret in self._tracker.secrets:
            reason = reason.replace(secret, "***")
        with self._changed:
            self._news.append(
                f"{self._tracker.name} is not up to date ({reason}). The search does not wait "
                "for it; `gsfl-tune track` sends what is missing when it has ended."
            )


def track_run(
    run: RunDirectory,
    trackers: Sequence[Tracker],
    on_trial: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Sends everything about a run to trackers, from its files.

    Args:
        run: The run; no search is working in it.
        trackers: The trackers.
        on_trial: Called with the number of sent trials and of all trials.

    Returns:
        Number of trials.
        Exception: Whatever a tracker's client raises.
    """
    info = _info(run)
    spaces = run_spaces(run)
    records = [
        TrialRecord.of(name, trial, spaces[name])
        for name, trials in read_studies(run.journal).items()
        for trial in trials
        if trial.state.name != "WAITING"
    ]
    results = read_results(run.results_file) if run.results_file.exists() else None
    total = len(records) * len(trackers)
    done = 0
    for tracker in trackers:
        tracker.open(info)
        try:
            for record in records:
                path = run.trial(record.study, record.number) / EPOCHS_FILE
                tracker.trial(record, EpochLog(path).read())
                done += 1
                on_trial(done, total)
            if results is not None:
                tracker.conclude(results)
        finally:
            tracker.close()
    return len(records)


def _info(run: RunDirectory) -> RunInfo:
    # The images may have moved since and are not needed here.
    return RunInfo.of(run, unchecked(run.experiment_file.read_text(encoding="utf-8")))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
