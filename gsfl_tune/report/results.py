"""Reader of a run directory: trials always, results if the run has finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.run.layout import RunDirectory
from gsfl_tune.run.results import FORMAT, Results, read_results
from gsfl_tune.run.utilisation import read_sessions, summary
from gsfl_tune.run.verdict import best_on_validation

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
PARAMETER = "params."


@dataclass(frozen=True)
class RunResults:
    """Holds the results and trials of a run.

    Attributes:
        run: The run directory.
        name: Name of the experiment.
        metric: The metric that the search compares, ``validation/...``.
        results: The final results; None while the run is not finished.
        trials: One row per trial of both studies; see ``docs/results.md`` for the columns.
        utilisation: How busy slots and GPUs were, see `gsfl_tune.run.utilisation.summary`.
    """

    run: RunDirectory
    name: str
    metric: str
    results: Results | None
    trials: pd.DataFrame
    utilisation: dict[str, Any] = field(default_factory=lambda: summary([]))

    @property
    def finished(self) -> bool:
        """Returns whether winner and control have been tested."""
        return self.results is not None

    @property
    def bundle(self) -> Path | None:
        """Returns the path of the bundle, if it has been written."""
        return self.run.best if self.run.best.is_dir() else None

    @property
    def counts(self) -> dict[str, int]:
        """Returns the number of the search's trials by state; always has all four states."""
        if self.results is not None:
            known = self.results.trials
        else:
            known = Counter(self.study("search")["state"])
        return {state: int(known.get(state, 0)) for state in STATES} | {
            state: int(count) for state, count in known.items() if state not in STATES
        }

    def study(self, name: str) -> pd.DataFrame:
        """Returns the trials of one study: ``search`` or ``control``."""
        return self.trials[self.trials["study"] == name]

    def leaderboard(self, top: int = 10) -> list[dict[str, Any]]:
        """Returns the best finished trials of the search: ``trial``, ``value``, ``params``.

        With ``search.folds`` or ``search.repeats`` also ``error`` and ``replicates``.
        """
        rows = self.study("search")
        rows = rows[(rows["state"] == "COMPLETE") & rows["value"].notna()]
        if "feasible" in rows:
            # Those that break a constraint cannot win.
            rows = rows[rows["feasible"] != False]  # noqa: E712 (pandas: neither True nor missing)
        rows = rows.sort_values(
            ["value", "number"], ascending=[metric_of(self.metric).sign < 0, True]
        )
        return [
            {
                "trial": int(row["number"]),
                "value": float(row["value"]),
                **_replicates(row),
                "params": {
                    str(column).removeprefix(PARAMETER): plain(row[column])
                    for column in rows.columns
                    if str(column).startswith(PARAMETER) and not pd.isna(row[column])
                },
            }
            for _, row in rows.head(top).iterrows()
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns ``results.json`` with additions; an unfinished run has the same keys."""
        if self.results is not None:
            content = self.results.to_json()
        else:
            content = {
                "format": FORMAT,
                "name": self.name,
                "status": "unfinished",
                "metric": self.metric,
                "trials": self.counts,
                "winner": None,
                "control": None,
                "difference": None,
            }
        bundle = str(self.bundle) if self.bundle else None
        return content | {
            "leaderboard": self.leaderboard(),
            "bundle": bundle,
            "best_on_validation": best_on_validation(self.results) if self.results else None,
            "utilisation": self.utilisation,
        }


def _replicates(row: Any) -> dict[str, Any]:
    count = row.get("replicates")
    if count is None or pd.isna(count):
        return {}
    error = row.get("error")
    return {"error": None if pd.isna(error) else float(error), "replicates": int(count)}


def begun(counts: Mapping[str, int]) -> int:
    """Counts the trials that have begun: a budget of trials limits these.

    Args:
        counts: Numbers of trials by state.
    """
    return sum(count for state, count in counts.items() if state != "WAITING")


def load_results(run: str | Path) -> RunResults:
    """Reads a run directory, finished or not.

    Raises:
        UserError: If it is not a run directory or its files are damaged.
    """
    directory = RunDirectory(run)
    if not directory.path.is_dir():
        raise UserError(f"{run}: no such run directory")
    if not (directory.experiment_file.is_file() or directory.results_file.is_file()):
        raise UserError(
            f"{run}: not a run directory (there is no {directory.experiment_file.name} in it)"
        )
    try:
        results = read_results(directory.results_file)
    except FileNotFoundError:
        results = None
    if results is not None:
        name, metric = results.name, results.metric
    else:
        name, metric = _from_experiment(directory.experiment_file)
    return RunResults(
        directory,
        name,
        metric,
        results,
        read_table(directory.trials_parquet),
        summary(read_sessions(directory)),
    )


def _from_experiment(path: Path) -> tuple[str, str]:
    from gsfl_tune.experiment import Experiment

    experiment = Experiment.load(path)
    return experiment.name, experiment.defaults().search.metric


def read_table(path: Path) -> pd.DataFrame:
    """Reads ``trials.parquet``; a table without rows if there is none.

    Raises:
        UserError: If it is damaged.
    """
    required: Sequence[str] = ("study", "number", "state", "value")
    if not path.is_file():
        return pd.DataFrame({column: [] for column in required})
    try:
        trials = pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error})") from error
    missing = [column for column in required if column not in trials]
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(missing)}")
    return trials


def plain(value: Any) -> Any:
    """Converts a NumPy scalar to Python; whole numbers that pandas made floats become int."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
