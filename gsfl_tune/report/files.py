"""Everything that a page is made of, read from the files of a run, whatever state it is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.report.results import RunResults, load_results
from gsfl_tune.report.trials import Curve, TrialRecord, trial_records
from gsfl_tune.run import EpochLog, RunDirectory, WorkerLog
from gsfl_tune.run.layout import EPOCHS_FILE

SEARCH, CONTROL = "search", "control"


class CurveReader:
    """Learning curves of a run's trials; a file that has not changed is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], Curve]] = {}

    def read(self, path: Path, metric: str) -> Curve:
        """The curve of one ``epochs.jsonl``; empty where there is no file."""
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
    """What the files of a run say.

    Attributes:
        results: Winner, control, table of trials.
        experiment: What was searched; None when the file cannot be read (any more).
        content: ``results.json`` as it is, with what `Results` does not know; empty before the end.
        manifest: ``run.json``.
        data: ``data.json``.
        evidence: ``evidence.json``; None where there is none.
        trials: The trials of both studies, oldest first.
        stretches: What workers did when, see `WorkerLog`.
        problems: Files that are there and cannot be read, one line each.
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
        """The run directory."""
        return self.results.run

    def study(self, name: str) -> list[TrialRecord]:
        """The trials of ``search`` or ``control``."""
        return [trial for trial in self.trials if trial.study == name]

    def part(self, key: str) -> tuple[Any, str]:
        """A part of the evidence; where there is none, None and the reason."""
        if not self.results.finished:
            return None, "The run is not finished: this is made of the winner's test images."
        if self.evidence is None:
            return None, "This run has no evidence.json."
        found = self.evidence.get(key)
        if isinstance(found, Mapping) and "error" in found:
            return None, f"It could not be computed: {found['error']}"
        if not found:
            return None, _absent(self, key)
        missing = [each for each in _REQUIRED.get(key, ()) if each not in found]
        if missing:
            return None, f"evidence.json has it without {', '.join(missing)}."
        return found, ""


def read_run(run: str | Path, curves: CurveReader | None = None) -> RunFiles:
    """Reads a run directory, finished or not.

    Args:
        run: The run directory.
        curves: Remembers the learning curves of an earlier call.

    Raises:
        UserError: If it is no run directory, or its results or table of trials are damaged.
    """
    results = load_results(run)
    directory = results.run
    curves = curves or CurveReader()
    problems: list[str] = []
    evidence = _mapping(directory.evidence_file, problems)
    return RunFiles(
        results=results,
        experiment=_experiment(directory.experiment_file, problems),
        content=_mapping(directory.results_file, problems) or {},
        manifest=_mapping(directory.manifest_file, problems) or {},
        data=_mapping(directory.data_file, problems) or {},
        evidence=evidence,
        trials=trial_records(
            results.trials,
            lambda study, number: curves.read(
                directory.trial(study, number) / EPOCHS_FILE, results.metric
            ),
        ),
        stretches=WorkerLog(directory).read(),
        problems=problems,
    )


def _experiment(path: Path, problems: list[str]) -> Experiment | None:
    if not path.is_file():
        return None
    try:
        return Experiment.load(path)
    except UserError as error:
        # A taxonomy that is not on this machine, say: ranges are then those of the trials.
        problems.append(f"{path.name}: {str(error).splitlines()[0]}")
        return None


def _mapping(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        # Browsers know no NaN: what is not a number is nothing.
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


# What a part must have to be shown.
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
}

# By which word a note of the evidence tells of a part.
_NOTED = {"pictures": "no pictures", "map": "no map", "probes": "no probe", "swap": "swap"}

_GROUPED = {
    "group_errors": "errors inside and across groups",
    "probes": "group probes",
    "swap": "the swap test",
}


def _absent(files: RunFiles, key: str) -> str:
    winner = files.results.results and files.results.results.winner
    head = winner.config.get("model", {}).get("head") if winner else None
    if head in ("plain", "linear") and key in _GROUPED:
        return f"The winner has a {head} head: without groups there are no {_GROUPED[key]}."
    notes = (files.evidence or {}).get("notes") or ()
    told = [str(note) for note in notes if _NOTED.get(key, key) in str(note)]
    if told:
        return f"It was left out: {'; '.join(told)}."
    return (
        "evidence.json has no such part: the run was made by an older version, or the part does "
        "not apply to its winner. `gsfl-tune evidence RUN` computes what is missing."
    )
