"""Reader of all files of a run that the page needs, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.report.clock import in_this_zone
from gsfl_tune.report.results import RunResults, load_results, read_table
from gsfl_tune.report.trials import Curve, TrialRecord, trial_records
from gsfl_tune.run import EpochLog, RunDirectory, WorkerLog
from gsfl_tune.run.layout import EPOCHS_FILE

SEARCH, CONTROL = "search", "control"


class CurveReader:
    """Reads learning curves of trials; does not read an unchanged file again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], Curve]] = {}

    def read(self, path: Path, metric: str) -> Curve:
        """Returns the curve of one ``epochs.jsonl``; empty if there is no file."""
        try:
            stat = path.stat()
        except OSError:
            return Curve()
        state = stat.st_mtime_ns, stat.st_size
        known = self._known.get(path)
        if known is None or known[0] != state:
            known = state, Curve.of(EpochLog(path).read(), metric)
            self._known[path] = known
        return known[1]


@dataclass(frozen=True)
class RunFiles:
    """Holds the contents of a run's files.

    Attributes:
        results: Winner, control, table of trials.
        experiment: The experiment; None if the file cannot be read (any more).
        content: Raw ``results.json``, with keys that `Results` lacks; empty before the end.
        manifest: ``run.json``.
        data: ``data.json``.
        evidence: ``evidence.json``; None if there is none.
        trials: The trials of both studies, oldest first.
        stretches: Work of each worker over time, see `WorkerLog`.
        problems: Files that exist but cannot be read, one line each.
    """

    results: RunResults
    experiment: Experiment | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] | None = None
    trials: list[TrialRecord] = field(default_factory=list)
    stretches: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def run(self) -> RunDirectory:
        """Returns the run directory."""
        return self.results.run

    def study(self, name: str) -> list[TrialRecord]:
        """Returns the trials of ``search`` or ``control``."""
        return [trial for trial in self.trials if trial.study == name]

    def part(self, key: str) -> tuple[Any, str]:
        """Returns a part of the evidence, or None and the reason why it is missing."""
        if not self.results.finished:
            return None, "The run is not finished: this part needs the winner's test results."
        if self.evidence is None:
            return None, "This run has no evidence.json."
        found = self.evidence.get(key)
        if isinstance(found, Mapping) and "error" in found:
            return None, f"This part could not be computed: {found['error']}"
        if not found:
            return None, _absent(self, key)
        missing = [each for each in _REQUIRED.get(key, ()) if each not in found]
        if missing:
            return None, f"This part of evidence.json lacks {', '.join(missing)}."
        return found, ""


def read_trials(
    run: RunDirectory,
    metric: str,
    table: pd.DataFrame | None = None,
    curves: CurveReader | None = None,
) -> list[TrialRecord]:
    """Reads the trials of a run with their learning curves.

    Args:
        run: The run directory.
        metric: The metric of the curves.
        table: The rows of ``trials.parquet``, if they are read already.
        curves: Caches the learning curves of an earlier call.

    Raises:
        UserError: If the table of trials is damaged.
    """
    known = curves or CurveReader()
    return trial_records(
        read_table(run.trials_parquet) if table is None else table,
        lambda study, number: known.read(run.trial(study, number) / EPOCHS_FILE, metric),
    )


def read_run(run: str | Path, curves: CurveReader | None = None) -> RunFiles:
    """Reads a run directory, finished or not.

    Args:
        run: The run directory.
        curves: Caches the learning curves of an earlier call.

    Raises:
        UserError: If it is not a run directory, or its results or table of trials are damaged.
    """
    results = load_results(run)
    directory = results.run
    problems: list[str] = []
    evidence = _mapping(directory.evidence_file, problems)
    manifest = _mapping(directory.manifest_file, problems) or {}
    stretches = WorkerLog(directory).read()
    trials = read_trials(directory, results.metric, results.trials, curves)
    return RunFiles(
        results=results,
        experiment=_experiment(directory.experiment_file, problems),
        content=_mapping(directory.results_file, problems) or {},
        manifest=manifest,
        data=_mapping(directory.data_file, problems) or {},
        evidence=evidence,
        trials=in_this_zone(trials, _drivers(manifest), stretches),
        stretches=stretches,
        problems=problems,
    )


def _drivers(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = manifest.get("drivers")
    known = found if isinstance(found, list) else []
    return [each for each in known if isinstance(each, dict)]


def _experiment(path: Path, problems: list[str]) -> Experiment | None:
    if not path.is_file():
        return None
    try:
        return Experiment.load(path)
    except UserError as error:
        # For example, a taxonomy is not on this machine. Ranges then come from the trials.
        problems.append(f"{path.name}: {first_line(error)}")
        return None


def _mapping(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        # JSON in browsers has no NaN: it becomes null.
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: cannot be read ({error})")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path.name}: found {type(content).__name__}, expected a mapping")
        return None
    return content


# Keys that a part must have to be shown.
_REQUIRED = {
    "worst_tenth": ("mean", "classes"),
    "group_errors": ("inside", "across", "share_inside", "expected_inside"),
    "calibration": ("ece", "nll", "bins"),
    "probes": ("chance", "parts"),
    "swap": (
        "pairs",
        "group_follows_shared",
        "class_follows_discriminative",
        "chance_group",
        "chance_class",
        "judge_accuracy",
    ),
    "map": ("points",),
    "wrong_sheet": ("file", "columns", "count"),
    "wrong_nearest": ("file", "columns", "count", "paths", "predicted", "true", "compared"),
    "parts": ("images", "shown", "overlap", "found", "parts"),
}

# Words that identify the note about a part of the evidence.
_NOTED = {"pictures": "no pictures", "map": "no map", "probes": "no probe", "swap": "swap"}

_GROUPED = {
    "group_errors": "errors inside and across groups",
    "probes": "group probes",
    "swap": "the swap test",
}


def _absent(files: RunFiles, key: str) -> str:
    winner = files.results.results and files.results.results.winner
    head = winner.config.get("model", {}).get("head") if winner else None
    spec = HEADS.get(str(head))
    if key in _GROUPED and spec is not None and not spec.grouped:
        return f"The winner has a {head} head: without groups there are no {_GROUPED[key]}."
    if key in _GROUPED and spec is not None and not spec.shared:
        return (
            f"The winner has a {head} head: its groups serve the loss alone, and it has no shared "
            f"part to test. This part ({_GROUPED[key]}) does not apply to it."
        )
    notes = (files.evidence or {}).get("notes") or ()
    told = [str(note) for note in notes if _NOTED.get(key, key) in str(note)]
    if told:
        return f"This part was left out: {'; '.join(told)}."
    return (
        "evidence.json lacks this part: an older version made the run, or the part does not "
        "apply to its winner. `gsfl-tune evidence RUN` computes what is missing."
    )
