"""What of a run's files nothing needs any more, and its removal.

Never removed: results, evidence, journal, tables, learning curves, predictions, bundles, reports.
What goes are checkpoints: those that no training continues from, and on request those of the
retrained models, of which the bundle holds the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from gsfl_tune.arguments import path_of
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.report import RunResults, load_results
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.run.layout import CHECKPOINT_FILE, RESULT_FILE
from gsfl_tune.run.results import Results
from gsfl_tune.runs.listing import file_sizes
from gsfl_tune.runs.state import State, state_of

TRIALS = "checkpoints of trials that have ended"
COMPARED = "checkpoints of retrains that were only compared"
OLDER = "older checkpoints of retrains that have ended"
OTHERS = "models of candidates that did not win"
TORN = "files that a killed process left half written"
RETRAINED = "retrained models of winner and control"
UNFINISHED = "checkpoints that a resume continues from"

_ENDED = ("COMPLETE", "PRUNED", "FAIL")
_STEM, _SUFFIX = CHECKPOINT_FILE.split(".")
_CHECKPOINT = re.compile(rf"{_STEM}(\.\d+)?\.{_SUFFIX}")
_TORN = re.compile(r"\..+\.tmp")


@dataclass(frozen=True)
class Removable:
    """Holds a file that may be removed.

    Attributes:
        path: The file.
        size: Its bytes.
        why: What it is.
    """

    path: Path
    size: int
    why: str


@dataclass(frozen=True)
class Cleaning:
    """Holds what may be removed of a run.

    Attributes:
        run: The run directory.
        state: Its state.
        size: Bytes of the whole run.
        remove: Files that nothing needs any more.
        keep: Checkpoints that something needs.
    """

    run: RunDirectory
    state: State
    size: int
    remove: list[Removable] = field(default_factory=list)
    keep: list[Removable] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Cleaning({str(self.run.path)!r}, {len(self.remove)} files, {self.freed} bytes)"

    @property
    def freed(self) -> int:
        """Returns the bytes of what may be removed."""
        return sum(each.size for each in self.remove)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; paths relative to the run."""
        return {
            "path": str(self.run.path),
            "state": self.state.name,
            "bytes": self.size,
            "freed": self.freed,
            "remove": [self._file(each) for each in self.remove],
            "keep": [self._file(each) for each in self.keep],
        }

    def _file(self, each: Removable) -> dict[str, Any]:
        path = each.path.relative_to(self.run.path).as_posix()
        return {"path": path, "bytes": each.size, "why": each.why}


def plan_cleaning(run: str | Path, *, retrained: bool = False) -> Cleaning:
    """Lists what nothing needs any more; removes nothing.

    Of a run that may be resumed, that is only what a resume does not need.

    Args:
        run: The run directory.
        retrained: Also list the retrained models of winner and control of a finished run. The
            bundle holds the winner's first; ``export --ensemble`` needs the others, and the
            evidence is then computed with the first alone.

    Raises:
        UserError: If it is not a run directory, or a driver works on it.
    """
    directory = RunDirectory(path_of(run, "plan_cleaning: run"))
    state = state_of(directory)
    if state.name == "running":
        raise UserError(
            f"{directory.path}: a driver is working on this run"
            + (f" (process {state.process})" if state.process else "")
            + "; allowed is a run that has ended or was stopped"
        )
    return _plan(directory, state, retrained)


def clean(run: str | Path, *, retrained: bool = False) -> Cleaning:
    """Removes what nothing needs any more; no driver can begin meanwhile.

    Args:
        run: The run directory.
        retrained: See `plan_cleaning`.

    Returns:
        What was removed; a file that could not be removed is in `Cleaning.keep`.

    Raises:
        UserError: If it is not a run directory, a driver works on it, or it cannot be written to.
    """
    plan_cleaning(run, retrained=retrained)  # refuses before the lock is written
    directory = RunDirectory(run)
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(directory))
        except OSError as error:
            where, why = error.filename or directory.path, error.strerror or error
            raise UserError(f"{where}: cannot be written ({why}); nothing was removed") from error
        # Looked at again: a driver may have gone on in between. The lock is this process's own.
        plan = _plan(directory, _state_without_lock(directory), retrained)
        gone, kept = [], list(plan.keep)
        for each in plan.remove:
            try:
                each.path.unlink(missing_ok=True)
                gone.append(each)
            except OSError as error:
                kept.append(Removable(each.path, each.size, f"cannot be removed: {error.strerror}"))
        return Cleaning(directory, plan.state, plan.size, gone, kept)


def _state_without_lock(run: RunDirectory) -> State:
    return State("finished") if run.results_file.is_file() else State("interrupted")


def _plan(run: RunDirectory, state: State, retrained: bool) -> Cleaning:
    found = load_results(run.path)
    sizes = dict(file_sizes(run.path))
    plan = Cleaning(run, state, sum(sizes.values()))
    judge = _Judge(found, retrained)
    for path, why, needed in judge.files(sizes):
        target = plan.keep if needed else plan.remove
        target.append(Removable(path, sizes[path], why))
    return plan


class _Judge:
    """Decides which files are needed.

    Args:
        found: The run.
        retrained: See `plan_cleaning`.
    """

    def __init__(self, found: RunResults, retrained: bool) -> None:
        self._run = found.run
        self._results = found.results
        self._retrained = retrained
        self._ended = _ended_trials(found.trials)
        self._labels = _labels(found.results) if found.results else frozenset()

    def files(self, sizes: dict[Path, int]) -> Iterator[tuple[Path, str, bool]]:
        """Yields every checkpoint and torn file: path, what it is, whether it is needed."""
        for path in sorted(sizes):
            if path.is_symlink() or any(each.is_symlink() for each in self._above(path)):
                continue
            if _TORN.fullmatch(path.name):
                yield path, TORN, False
            elif _CHECKPOINT.fullmatch(path.name):
                yield path, *self._checkpoint(path)

    def _above(self, path: Path) -> Iterator[Path]:
        for each in path.parents:
            if each == self._run.path:
                return
            yield each

    def _checkpoint(self, path: Path) -> tuple[str, bool]:
        place = path.relative_to(self._run.path).parts[:-1]
        match place:
            case ("trials", number) | ("trials", number, _):
                return self._trial("search", number)
            case ("control", "trials", number) | ("control", "trials", number, _):
                return self._trial("control", number)
            case ("finals", label, kind, _):
                return self._retrain(path, label, kind)
        # Of a training that somebody put there.
        return UNFINISHED, True

    def _trial(self, study: str, number: str) -> tuple[str, bool]:
        if number.isdigit() and (study, int(number)) in self._ended:
            return TRIALS, False
        return UNFINISHED, True

    def _retrain(self, path: Path, label: str, kind: str) -> tuple[str, bool]:
        if not path.with_name(RESULT_FILE).is_file():
            # `export --pick` trains in such a folder too, and leaves a bundle; so does `export
            # --without-validation` in that of the winner, if an older version did not validate it.
            picked = label.removeprefix("search-")
            names = (picked, f"{picked}-train") if kind == "validate" else (picked,)
            bundles = [self._run.path / "picks" / name for name in names]
            done = self._results is not None and any(each.is_dir() for each in bundles)
            return (OTHERS, False) if done else (UNFINISHED, True)
        if kind == "validate":
            return COMPARED, False
        if path.name != CHECKPOINT_FILE:
            return OLDER, False
        if self._results is None:
            return UNFINISHED, True
        if label in self._labels:
            return RETRAINED, not (self._retrained and self._run.best.is_dir())
        return OTHERS, False


def _ended_trials(table: pd.DataFrame) -> frozenset[tuple[str, int]]:
    """Returns study and number of the trials that no driver touches again."""
    rows = table[table["state"].isin(_ENDED)]
    return frozenset((str(row.study), int(row.number)) for row in rows.itertuples())


def _labels(results: Results) -> frozenset[str]:
    """Returns the folders of the retrains that the results are about."""
    labels = {f"search-{results.winner.trial}"}
    control = results.control
    if control is not None:
        tuned = control.kind == "tuned"
        labels.add(f"control-{control.trial}" if tuned else f"search-{control.trial}-plain")
    return frozenset(labels)
