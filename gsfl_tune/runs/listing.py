"""All runs below a folder, in a line each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gsfl_tune.arguments import path_of
from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.plugins import PluginError
from gsfl_tune.report import load_results
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.running_estimate import read_estimate
from gsfl_tune.runs.state import State, last_sign, read_manifest, state_of


@dataclass(frozen=True)
class RunSummary:
    """Describes a run in a line.

    Attributes:
        path: The run directory.
        name: Name of the experiment.
        state: Its state.
        size: Bytes of all its files.
        trials: Number of the search's trials by state.
        planned: Number of trials that it is to have; None if a time budget decides.
        metric: The metric that the search compares.
        best: Best value of a finished trial; None without one.
        test: Test accuracy of the winner, mean over its seeds; None before the end.
        begun: When it began, seconds since 1970; None if unknown.
        last: When it was last written to, seconds since 1970; None if unknown.
        left: Seconds until the tested bundle, as its driver expects; None without one.
        problem: Why a part of it is unknown; empty if all could be read.
    """

    path: Path
    name: str
    state: State
    size: int
    trials: Mapping[str, int] = field(default_factory=dict)
    planned: int | None = None
    metric: str = ""
    best: float | None = None
    test: float | None = None
    begun: float | None = None
    last: float | None = None
    left: float | None = None
    problem: str = ""

    def __repr__(self) -> str:
        test = "" if self.test is None else f", test {100 * self.test:.1f} %"
        trials = f"{sum(self.trials.values())} trials"
        return (
            f"RunSummary({str(self.path)!r}, {self.state}, {trials}, best {self.best_text}{test})"
        )

    @property
    def best_text(self) -> str:
        """Returns the best value for people, with its name unless it is the accuracy."""
        if self.best is None:
            return "–"
        metric = metric_of(self.metric)
        value = metric.text(self.best)
        return value if metric.name == "accuracy" else f"{value} {metric.name}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; instants as text in UTC."""
        return {
            "path": str(self.path),
            "name": self.name,
            "state": self.state.name,
            "reason": self.state.reason or None,
            "process": int(self.state.process) if self.state.process.isdigit() else None,
            "trials": dict(self.trials),
            "planned": self.planned,
            "metric": self.metric or None,
            "best": self.best,
            "test_accuracy": self.test,
            "bytes": self.size,
            "begun": _utc(self.begun),
            "last": _utc(self.last),
            "seconds_left": self.left,
            "problem": self.problem or None,
        }


def find_runs(folder: str | Path = "runs") -> list[RunSummary]:
    """Finds all runs below a folder, which may be a run itself; the last one written to first.

    Folders whose name begins with a dot, links, and the inside of runs are not searched.

    Args:
        folder: The folder.

    Raises:
        UserError: If there is no such folder.
    """
    top = path_of(folder, "find_runs: folder")
    if not top.is_dir():
        found = "a file" if top.exists() else "nothing there"
        raise UserError(f"{top}: found {found}, allowed is a folder that holds runs")
    listed = [summarise(path) for path in _runs(top)]
    return sorted(listed, key=lambda run: (-(run.last or 0.0), str(run.path)))


def summarise(path: str | Path) -> RunSummary:
    """Describes one run; what cannot be read is told in `RunSummary.problem`.

    Raises:
        UserError: If it is not a run directory, or ``run.json`` is damaged.
    """
    run = RunDirectory(path_of(path, "summarise: path"))
    problems: list[str] = []
    try:
        manifest = read_manifest(run)
        state = state_of(run)
    except UserError as error:
        if not run.manifest_file.is_file():
            raise
        manifest, state = {}, State("failed", first_line(error))
    known: dict[str, Any] = {}
    try:
        found = load_results(run.path)
        known = {
            "name": found.name,
            "metric": found.metric,
            "trials": {name: count for name, count in found.counts.items() if count},
            "test": found.results.winner.test["accuracy"].mean if found.results else None,
        }
        # Which value is best is unknown where the metric's package is not installed any more.
        board = found.leaderboard(1)
        known["best"] = board[0]["value"] if board else None
    except (UserError, PluginError, OSError) as error:
        problems.append(first_line(error))
    settings = manifest.get("settings")
    planned = None
    if isinstance(settings, Mapping) and settings.get("time_budget") is None:
        planned = settings.get("trials")
    last = last_sign(manifest)
    estimate = read_estimate(run)
    return RunSummary(
        path=Path(path),
        state=state,
        size=sum(size for _, size in file_sizes(run.path)),
        planned=planned if isinstance(planned, int) else None,
        begun=_instant(manifest.get("created")),
        last=_modified(run) if last is None else last,
        left=None if estimate is None else estimate.left,
        problem="; ".join(problems),
        **{"name": str(manifest.get("name", run.path.name)), **known},
    )


def file_sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yields the files below a folder with their bytes; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            try:
                stat = file.lstat()
            except OSError:
                continue  # a driver replaces files meanwhile
            if stat.st_nlink > 1:
                if (stat.st_dev, stat.st_ino) in seen:
                    yield file, 0
                    continue
                seen.add((stat.st_dev, stat.st_ino))
            yield file, stat.st_size


def _runs(top: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(top):
        if RunDirectory(place).manifest_file.name in names and _is_run(Path(place)):
            yield Path(place)
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_run(place: Path) -> bool:
    """Tells a run from another program's folder with a ``run.json``."""
    run = RunDirectory(place)
    return any(
        file.is_file()
        for file in (run.experiment_file, run.journal, run.results_file, run.lock_file)
    )


def _modified(run: RunDirectory) -> float | None:
    files: Iterable[Path] = (run.results_file, run.journal, run.manifest_file)
    times = [file.stat().st_mtime for file in files if file.is_file()]
    return max(times, default=None)


def _instant(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def _utc(instant: float | None) -> str | None:
    return (
        None
        if instant is None
        else datetime.fromtimestamp(instant, UTC).isoformat(timespec="seconds")
    )
