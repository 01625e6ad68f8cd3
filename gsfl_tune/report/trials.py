"""The trials of a run: parameters, learning curves, best values and failures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from gsfl_tune.report.results import PARAMETER, plain
from gsfl_tune.run import StudyName

RUNG = "rungs."
PRETRAINING = "pretrain_knn."
# Begin of the reason of a trial that a changed space no longer has; see docs/troubleshooting.md.
_OUTSIDE = "outside the changed space"
UNRELIABLE = "measured while the machine was busy, or never steady"
# Most points of a curve that a screen can show; longer curves are thinned.
MOST_POINTS = 120


@dataclass(frozen=True)
class Curve:
    """Holds the search metric after every epoch.

    Attributes:
        values: One per epoch; None where it is missing.
        before: Epochs of them before the last stage.
    """

    values: tuple[float | None, ...] = ()
    before: int = 0

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], metric: str) -> Curve:
        """Builds a curve from the lines of ``epochs.jsonl``."""
        listed = list(records)
        stages = [record.get("stage") for record in listed]
        before = sum(stage != stages[-1] for stage in stages)
        return cls(tuple(_finite(record.get(metric)) for record in listed), before)

    def thinned(self, keep: Iterable[int] = ()) -> list[tuple[int, float]]:
        """Returns epochs (from 1) with their values, no more than a chart can show.

        Args:
            keep: Epochs that must stay.
        """
        step = max(1, math.ceil(len(self.values) / MOST_POINTS))
        wanted = {*range(1, len(self.values) + 1, step), len(self.values), *keep}
        return [(e, v) for e, v in enumerate(self.values, 1) if v is not None and e in wanted]


@dataclass(frozen=True)
class TrialRecord:
    """Holds one trial.

    Attributes:
        study: ``search`` or ``control``.
        number: Number of the trial.
        state: COMPLETE, PRUNED, FAIL, RUNNING or WAITING.
        value: The metric at the end of a COMPLETE trial.
        latency: Milliseconds per image of a COMPLETE trial, if latency was an objective.
        reliable: Whether that was measured on a quiet machine; None where unknown.
        doubt: What disturbed an unreliable measurement; None of a reliable one.
        reason: Why it failed.
        ended: The limit of the search that stopped it.
        origin: What proposed it; None for the sampler.
        halved: Whether its batches were trained in two halves.
        precision: What the stage that trains its backbone computed in; None without one.
        epochs: Epochs trained so far.
        seconds: Seconds of training so far.
        begin: Seconds since 1970, None if unknown.
        end: Seconds since 1970, None if unknown.
        params: Searched parameters that were active.
        rungs: The metric at every rung that it reached.
        pretraining: By epoch of its pretraining, the accuracy of nearest neighbours at the rungs
            there.
        curve: The metric by epoch, of the first training.
        error: Standard error of the value, the mean over trainings on other folds or seeds.
        replicates: Number of these trainings that have ended; None where trials have one.
        feasible: Whether it breaks no constraint of the search; only such a trial can win.
    """

    study: str
    number: int
    state: str
    value: float | None = None
    latency: float | None = None
    reliable: bool | None = None
    doubt: str | None = None
    reason: str | None = None
    ended: str | None = None
    origin: str | None = None
    halved: bool = False
    precision: str | None = None
    epochs: int = 0
    seconds: float = 0.0
    begin: float | None = None
    end: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    rungs: Mapping[int, float] = field(default_factory=dict)
    pretraining: Mapping[int, float] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)
    error: float | None = None
    replicates: int | None = None
    feasible: bool = True

    @property
    def outside(self) -> bool:
        """Returns whether it only counts as failed because a changed space lacks it."""
        return self.state == "FAIL" and (self.reason or "").startswith(_OUTSIDE)

    @property
    def last(self) -> float | None:
        """Returns the last known value: at its end, its last rung, or its last epoch."""
        if self.value is not None:
            return self.value
        if self.rungs:
            return self.rungs[max(self.rungs)]
        known = [value for value in self.curve.values if value is not None]
        return known[-1] if known else None


def trial_records(
    table: pd.DataFrame, curve: Callable[[StudyName, int], Curve]
) -> list[TrialRecord]:
    """Converts the rows of ``trials.parquet``, including those of an older version.

    Args:
        table: The rows.
        curve: Returns the learning curve of a trial.
    """
    rows = [_record(row, curve) for row in table.to_dict("records")]
    return sorted(rows, key=lambda trial: (trial.study, trial.number))


def _record(row: Mapping[Any, Any], curve: Callable[[StudyName, int], Curve]) -> TrialRecord:
    study: StudyName = "control" if row["study"] == "control" else "search"
    number = int(row["number"])
    found = curve(study, number)
    state = str(row["state"])
    return TrialRecord(
        study=study,
        number=number,
        # The table is written every few seconds, but epochs are written immediately.
        state="RUNNING" if state == "WAITING" and found.values else state,
        value=_finite(row.get("value")),
        latency=_finite(row.get("latency_ms")),
        reliable=_flag(row.get("latency_reliable")),
        doubt=doubt(row),
        reason=_text(row.get("reason")),
        ended=_text(row.get("ended")),
        origin=_text(row.get("origin")),
        halved=row.get("batch_halved") is True,
        precision=_text(row.get("precision")),
        epochs=int(_finite(row.get("epochs")) or len(found.values)),
        seconds=_finite(row.get("seconds")) or 0.0,
        begin=_instant(row.get("started")),
        end=_instant(row.get("finished")),
        params={
            str(key).removeprefix(PARAMETER): plain(value)
            for key, value in row.items()
            if str(key).startswith(PARAMETER) and not _missing(value)
        },
        rungs=dict(sorted(_numbered(row, RUNG))),
        pretraining=dict(sorted(_numbered(row, PRETRAINING))),
        curve=found,
        error=_finite(row.get("error")),
        replicates=_whole(row.get("replicates")),
        feasible=_missing(row.get("feasible")) or bool(row.get("feasible")),
    )


def _numbered(row: Mapping[Any, Any], name: str) -> Iterable[tuple[int, float]]:
    for key, value in row.items():
        number = str(key).removeprefix(name)
        known = _finite(value) if str(key).startswith(name) and number.isdigit() else None
        if known is not None:
            yield int(number), known


@dataclass(frozen=True)
class Failures:
    """Holds the trials that failed for one reason.

    Attributes:
        reason: The message of the first of them.
        trials: Their numbers.
        study: Their study.
    """

    reason: str
    trials: list[int]
    study: str


def failures(trials: Sequence[TrialRecord]) -> list[Failures]:
    """Groups failed trials by reason, most frequent first; ignores numbers in a reason."""
    found: dict[tuple[str, str], Failures] = {}
    for trial in trials:
        if trial.state != "FAIL":
            continue
        reason = trial.reason or "no reason was recorded"
        key = trial.study, re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", reason)
        found.setdefault(key, Failures(reason, [], trial.study)).trials.append(trial.number)
    return sorted(found.values(), key=lambda each: -len(each.trials))


def best_so_far(
    trials: Sequence[TrialRecord], *, maximize: bool
) -> list[tuple[float, float, TrialRecord]]:
    """Returns finished trials that beat all earlier ones: (time of its end, value, trial).

    Trials that break a constraint are left out: none of them can win.
    """
    ended = [t for t in trials if t.state == "COMPLETE" and t.feasible]
    finished = [t for t in ended if t.value is not None and t.end]
    best: list[tuple[float, float, TrialRecord]] = []
    for trial in sorted(finished, key=lambda each: each.end or 0.0):
        value = trial.value or 0.0
        if not best or (value > best[-1][1] if maximize else value < best[-1][1]):
            best.append((trial.end or 0.0, value, trial))
    return best


def _missing(value: Any) -> bool:
    return (
        value is None
        or value is pd.NaT
        or (isinstance(value, float) and math.isnan(value))
        or (value is pd.NA)
    )


def _finite(value: Any) -> float | None:
    if _missing(value) or isinstance(value, str | bytes):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _finite(value)
    return None if number is None else int(number)


def doubt(row: Mapping[Any, Any]) -> str | None:
    """Says why the latency in a row of ``trials.parquet`` is unreliable; None if it is not."""
    if _flag(row.get("latency_reliable")) is not False:
        return None
    spread, others = _finite(row.get("latency_spread")), _finite(row.get("latency_others"))
    if spread is None or others is None:  # of an older version
        return UNRELIABLE
    return (
        f"parts of the measurement differed by {100 * spread:.0f} %, other processes used "
        f"{others:.1f} cores"
    )


def _flag(value: Any) -> bool | None:
    return None if _missing(value) else bool(value)


def _text(value: Any) -> str | None:
    return None if _missing(value) else str(value)


def _instant(value: Any) -> float | None:
    """Converts local time without a zone, as Optuna writes it, to seconds since 1970."""
    if _missing(value):
        return None
    moment = value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
    return moment.timestamp() if isinstance(moment, datetime) else None
