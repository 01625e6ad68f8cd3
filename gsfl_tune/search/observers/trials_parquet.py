"""``trials.parquet``: one row per trial, derived from the journal and the trials' own files."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
from optuna.trial import FrozenTrial
from pyarrow import parquet

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.experiment.metrics import LATENCY, MEASURED
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import RunDirectory, StudyName, write_bytes
from gsfl_tune.run.epochs import PRECISION, epochs_of_trial
from gsfl_tune.run.layout import EPOCHS_FILE, replicate_directory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.samplers.history import OUTSIDE, RUNGS
from gsfl_tune.search.samplers.spaces import run_spaces
from gsfl_tune.search.study.goals import (
    PRETRAINING,
    feasible,
    knn_by_epoch,
    latency_disturbance,
    latency_reliable,
    latest_others,
)
from gsfl_tune.search.study.journal import read_studies
from gsfl_tune.search.workers.replicates import errors_of, means, rows_of
from gsfl_tune.search.workers.tensorboard_events import words_of

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

SECONDS_BETWEEN_WRITES = 5.0

# Column: whether the latency was steady, with a core for every thread.
RELIABLE = "latency_reliable"

FORMAT = 1
# The columns of every file, in order; docs/ecosystem.md describes them.
SCHEMA = {
    "study": pyarrow.string(),
    "number": pyarrow.int64(),
    "state": pyarrow.string(),
    "value": pyarrow.float64(),
    "reason": pyarrow.string(),
    "ended": pyarrow.string(),
    "batch_halved": pyarrow.bool_(),
    "origin": pyarrow.string(),
    "epochs": pyarrow.int64(),
    "seconds": pyarrow.float64(),
    "started": pyarrow.timestamp("us"),
    "finished": pyarrow.timestamp("us"),
}


def trial_rows(
    run: RunDirectory, name: StudyName, trials: list[FrozenTrial], space: Space | None
) -> list[dict[str, Any]]:
    """Returns one mapping per trial: state, value, parameters, and numbers of its last epoch.

    Args:
        run: The run.
        name: Name of the study.
        trials: Trials of the study.
        space: Tells which parameters were active; without it all drawn parameters are listed.
    """
    return [_row(run, name, trial, space) for trial in trials]


def count_trials(run: RunDirectory) -> dict[str, int]:
    """Counts trials of the search by state, as in ``trials.parquet``; lists all four states."""
    table = parquet.read_table(run.trials_parquet, columns=["study", "state"]).to_pylist()
    found = Counter(row["state"] for row in table if row["study"] == "search")
    return {state: found[state] for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")}


def write_trials(run: RunDirectory) -> None:
    """Writes ``trials.parquet`` again from the journal and the trials' files."""
    rows: list[dict[str, Any]] = []
    spaces = run_spaces(run)
    for name, trials in read_studies(run.journal).items():
        rows += trial_rows(run, name, trials, spaces.get(name))
    _write(run, rows)


class TrialTable(Watcher):
    """Keeps ``trials.parquet`` up to date while a study runs.

    Rows of finished trials are read once. The file is written at most every few seconds, and
    less often where writing is slow.

    Args:
        run: The run.
        study: The study that runs.
        storage: Storage with the files of trials that ran elsewhere.
    """

    def __init__(self, run: RunDirectory, study: Study, storage: DriverCopy | None = None) -> None:
        self._run = run
        self._storage = storage
        self._study = study
        self._rows: dict[int, dict[str, Any]] = {}
        self._others: list[dict[str, Any]] = []
        self._due = 0.0
        self._dirty = False

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Reads the rows of the run's other studies."""
        spaces = run_spaces(self._run)
        for name, trials in read_studies(self._run.journal).items():
            if name != self._study.name:
                self._others += trial_rows(self._run, name, trials, spaces.get(name))
        self._write()

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Adds a row."""
        self._dirty = True

    def rung(self, number: int, k: int, value: float) -> None:
        """Updates a row."""
        self._dirty = True

    def ended(self, number: int) -> None:
        """Completes a row."""
        self._dirty = True
        if self._storage is not None:
            for path in self._epochs(number):
                self._storage.want(path)

    def tick(self) -> None:
        """Writes changes if the last write is long enough ago."""
        if self._dirty and time.monotonic() >= self._due:
            self._write()

    def finish(self, *, interrupted: bool) -> None:
        """Writes the final state."""
        if self._storage is not None:
            # If it does not answer, a resume retries.
            with suppress(EnvironmentProblem):
                self._storage.settle()
        self._write()

    def _epochs(self, number: int) -> list[Path]:
        """Returns the logs of a trial's trainings that ended, and of one that may have begun."""
        directory, ended = (
            self._run.trial(self._study.name, number),
            rows_of(self._study.trial(number)),
        )
        return [replicate_directory(directory, n) / EPOCHS_FILE for n in range(len(ended) + 1)]

    def _on_its_way(self, number: int) -> bool:
        storage = self._storage
        return storage is not None and any(map(storage.is_wanted, self._epochs(number)))

    def _write(self) -> None:
        started = time.monotonic()
        rows = []
        missing = False
        for trial in self._study.trials():
            row = self._rows.get(trial.number)
            if row is None:
                row = _row(self._run, self._study.name, trial, self._study.space)
                if self._on_its_way(trial.number):
                    missing = True
                elif trial.state.is_finished():
                    self._rows[trial.number] = row
            rows.append(row)
        _write(self._run, rows + self._others)
        now = time.monotonic()
        self._due = now + max(SECONDS_BETWEEN_WRITES, 30 * (now - started))
        self._dirty = missing


def _row(
    run: RunDirectory, name: StudyName, trial: FrozenTrial, space: Space | None
) -> dict[str, Any]:
    trainings = epochs_of_trial(run.trial(name, trial.number))
    epochs = [record for records in trainings for record in records]
    row: dict[str, Any] = {
        "study": name,
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.values[0] if trial.state.name == "COMPLETE" and trial.values else None,
        "reason": trial.user_attrs.get("reason"),
        "ended": trial.user_attrs.get("ended"),
        "batch_halved": bool(trial.user_attrs.get("batch_halved", False)),
        "origin": trial.user_attrs.get("origin"),
        "epochs": len(epochs),
        "seconds": sum(record.get("seconds", 0.0) for record in epochs),
        "started": trial.datetime_start,
        "finished": trial.datetime_complete,
    }
    others = latest_others(trial)
    if trial.values and len(trial.values) > 1 and not others:
        row[LATENCY] = trial.values[1]  # of an older version
    row |= {key: value for key, value in others.items() if key in MEASURED}
    if LATENCY in row and (reliable := latency_reliable(trial)) is not None:
        row[RELIABLE] = reliable
        row |= {f"latency_{name}": value for name, value in latency_disturbance(trial).items()}
    if trial.constraints and trial.state.is_finished():
        row["feasible"] = feasible(trial)
    row |= _last_numbers(trainings, trial)
    if epochs and PRECISION in epochs[-1]:
        row[PRECISION] = epochs[-1][PRECISION]
    errors = list(errors_of(trial).items())
    if errors:
        row["error"], row["replicates"] = errors[0][1], len(rows_of(trial))
        row |= {f"error.{key}": error for key, error in errors[1:]}
    # With several objectives Optuna accepts no intermediate values. A trial outside of a changed
    # space keeps them with the numbers of another space.
    outside = OUTSIDE in trial.user_attrs
    rungs = trial.intermediate_values or ({} if outside else trial.user_attrs.get(RUNGS, {}))
    for k, value in sorted((int(k), value) for k, value in rungs.items()):
        if k >= 0:  # those within a pretraining are not the objective
            row[f"rungs.{k}"] = value
    for epoch, value in knn_by_epoch(trial).items():
        row[f"{PRETRAINING}.{epoch}"] = value
    params = trial.params if space is None else space.active_params(trial.params)
    words = set() if space is None else words_of(space)
    for key, value in params.items():
        row[f"params.{key}"] = str(value) if key in words and value is not None else value
    return row


def _last_numbers(
    trainings: Sequence[Sequence[Mapping[str, Any]]], trial: FrozenTrial
) -> dict[str, float]:
    """Returns the numbers of the last epoch: the mean over the trainings that have ended."""
    rows = [
        {key: value for key, value in records[-1].items() if "/" in key}
        for records in trainings[: max(1, len(rows_of(trial)))]
        if records
    ]
    return means(rows) if len(rows) > 1 else dict(*rows)


def _write(run: RunDirectory, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys([*SCHEMA, *sorted({key for row in rows for key in row})]))
    fields, columns = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        kind = SCHEMA.get(name) or _kind(name, values)
        if kind == pyarrow.string():
            # Mixed choices such as "all" and 2 become text: a Parquet column has one type.
            values = [None if value is None else str(value) for value in values]
        fields.append(pyarrow.field(name, kind))
        columns.append(pyarrow.array(values, kind))
    schema = pyarrow.schema(fields, metadata={"gsfl_tune.trials": str(FORMAT)})
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
    write_bytes(run.trials_parquet, buffer.getvalue())


def _kind(name: str, values: list[Any]) -> pyarrow.DataType:
    """Returns the type of a column that depends on the experiment."""
    if name in ("feasible", RELIABLE):
        return pyarrow.bool_()
    if name == "replicates":
        return pyarrow.int64()
    if name == PRECISION:
        return pyarrow.string()
    if not name.startswith("params."):
        return pyarrow.float64()
    known = [value for value in values if value is not None]
    if not known or any(isinstance(value, str) for value in known):
        return pyarrow.string()
    flags = [isinstance(value, bool) for value in known]
    if any(flags):
        return pyarrow.bool_() if all(flags) else pyarrow.string()
    whole = all(isinstance(value, Integral) for value in known)
    return pyarrow.int64() if whole else pyarrow.float64()
