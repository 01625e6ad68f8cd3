"""Our side of `expert.py`: the search as `gsfl-tune search` runs it, with a stopwatch.

`gsfl_tune.pipeline.search` is what the command calls. A watcher notes when trials end, and
presses Ctrl-C when the comparison has what it needs: finalists and retraining are not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.pipeline import search
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import SearchInterrupted, Study, Watcher


class Stopwatch(Watcher):
    """Notes when trials end, in seconds since the first epoch of the first trial began.

    Args:
        run: The run directory.
        trials: Go on at least until so many trials have ended,
        seconds: and for so long.
        grace: Epochs before the first comparison.
    """

    def __init__(self, run: RunDirectory, trials: int, seconds: float, grace: int) -> None:
        self._run = run
        self._least = trials
        self._seconds = seconds
        self._grace = grace
        self._study: Study | None = None
        self._rungs: dict[int, float] = {}
        self._asked: dict[int, float] = {}
        self._stopped = False
        self.begun_at = 0.0
        self.first_epoch: float | None = None
        self.slots = 1
        self.ended_at: dict[int, float] = {}
        self.now = time.time()

    def begin(self, study: Study, budget: int, slots: int) -> None:
        self._study, self.slots = study, slots
        self.begun_at = time.time()

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        self._asked[number] = time.time()

    def rung(self, number: int, k: int, value: float) -> None:
        now = time.time()
        if k == 0 and number not in self._rungs:
            self._rungs[number] = now
            # The trials that began together: later ones did not begin earlier.
            if len(self._rungs) <= self.slots:
                first = self._epochs(number)[: self._grace]
                began = now - sum(record["seconds"] for record in first)
                self.first_epoch = min(began, self.first_epoch or began)

    def ended(self, number: int) -> None:
        self.ended_at[number] = time.time()
        self.tick()

    def tick(self) -> None:
        self.now = time.time()
        if self._stopped or self.first_epoch is None:
            return
        elapsed = self.now - self.first_epoch
        if elapsed >= self._seconds and len(self.ended_at) >= self._least:
            self._stopped = True
            os.kill(os.getpid(), signal.SIGINT)

    def record(self) -> dict[str, Any]:
        """What is compared."""
        assert self._study is not None
        assert self.first_epoch is not None
        start = self.first_epoch
        seconds = max(self.ended_at.values()) - start
        trials = self._study.trials()
        rows = []
        busy = 0.0
        epochs = 0
        for number, at in sorted(self.ended_at.items(), key=lambda item: item[1]):
            records = self._epochs(number)
            busy += sum(record["seconds"] for record in records)
            epochs += len(records)
            trial = trials[number]
            rows.append(
                {
                    "number": number,
                    "state": trial.state.name,
                    "value": trial.value,
                    "end": at - start,
                    "epochs": len(records),
                    "asked": self._asked.get(number, start) - start,
                    "busy": sum(record["seconds"] for record in records),
                    "origin": trial.user_attrs.get("origin"),
                }
            )
        return {
            "seconds": seconds,
            "epochs": epochs,
            "busy": busy / (seconds * self.slots),
            "trials": rows,
            "any_epoch": max(
                record["validation/accuracy"]
                for number in self.ended_at
                for record in self._epochs(number)
            ),
        }

    def _epochs(self, number: int) -> list[dict[str, Any]]:
        return EpochLog(self._run.trial("search", number) / "epochs.jsonl").read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--spawned", type=float, default=None, help="time.time() of the start")
    args = parser.parse_args()
    spawned = args.spawned or time.time()
    experiment = Experiment.load(args.experiment)
    grace = experiment.defaults().search.scheduler.grace
    watch = Stopwatch(RunDirectory(args.run_dir), args.trials, args.seconds, grace)
    with suppress(SearchInterrupted):
        search(experiment, args.run_dir, watchers=[watch])
    record = watch.record()
    assert watch.first_epoch is not None
    record |= {
        "startup": watch.first_epoch - spawned,
        "ray_up": watch.begun_at - spawned,
    }
    args.out.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
