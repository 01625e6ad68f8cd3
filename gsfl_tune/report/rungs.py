"""Statistics of the rungs, and rank correlations between early and late rungs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gsfl_tune.report.trials import TrialRecord

# A rank correlation of fewer trials is meaningless.
FEWEST = 5


@dataclass(frozen=True)
class Rung:
    """Holds the statistics of one rung.

    Attributes:
        index: Number from 0.
        label: Label for an axis: the epoch, if known.
        reached: Trials that have a value there.
        stopped: Trials that ASHA stopped there.
        median: Median of the values; None without any.
        best: The best value; None without any.
    """

    index: int
    label: str
    reached: int
    stopped: int
    median: float | None
    best: float | None


@dataclass(frozen=True)
class RankCorrelation:
    """Holds Spearman's correlation of the values that the same trials had at two rungs.

    Attributes:
        value: None if the trials are too few or all equal.
        trials: Trials that reached both.
    """

    value: float | None
    trials: int


def rung_epochs(
    stretches: Iterable[Mapping[str, Any]], since: float | None = None
) -> dict[int, int]:
    """Returns the epoch at which most trials reached each rung, from the workers' log.

    Args:
        stretches: See `gsfl_tune.run.workers.WorkerLog`.
        since: When the space was changed last, in seconds since 1970: before, rungs may have had
            other numbers.
    """
    seen: dict[int, Counter[int]] = {}
    for stretch in stretches:
        rung, epoch = stretch.get("rung"), stretch.get("epoch")
        if not isinstance(rung, int) or rung < 0:
            continue  # below 0 they are within a pretraining
        if since is not None and float(stretch.get("begin", 0)) < since:
            continue
        if isinstance(epoch, int) and stretch.get("study") == "search":
            seen.setdefault(rung, Counter())[epoch] += 1
    return {rung: counts.most_common(1)[0][0] for rung, counts in sorted(seen.items())}


def rungs(
    trials: Sequence[TrialRecord], epochs: Mapping[int, int], *, maximize: bool
) -> list[Rung]:
    """Returns the rungs that trials of a study reached, first to last."""
    table = values_by_rung(trials)
    ends = Counter(
        max(trial.rungs)
        for trial in trials
        if trial.state == "PRUNED" and trial.rungs and trial.ended is None
    )
    found = []
    for index in table.columns:
        values = table[index].dropna()
        known = len(values) > 0
        found.append(
            Rung(
                index=int(index),
                label=f"epoch {epochs[index]}" if index in epochs else f"rung {index + 1}",
                reached=len(values),
                stopped=ends[index],
                median=float(values.median()) if known else None,
                best=float(values.max() if maximize else values.min()) if known else None,
            )
        )
    return found


def pretraining_rungs(trials: Sequence[TrialRecord]) -> list[Rung]:
    """Returns the rungs within pretrainings, first to last; their number is the epoch.

    Values are accuracies of nearest neighbours, whatever the objective is.
    """
    ends = Counter(
        max(trial.pretraining)
        for trial in trials
        if trial.state == "PRUNED" and trial.pretraining and not trial.rungs and trial.ended is None
    )
    found = []
    for epoch in sorted({epoch for trial in trials for epoch in trial.pretraining}):
        values = [trial.pretraining[epoch] for trial in trials if epoch in trial.pretraining]
        found.append(
            Rung(
                index=epoch,
                label=f"pretraining epoch {epoch}",
                reached=len(values),
                stopped=ends[epoch],
                median=float(np.median(values)),
                best=max(values),
            )
        )
    return found


def values_by_rung(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """Returns one row per trial and one column per rung; NaN where a trial did not reach it."""
    last = max((max(trial.rungs) for trial in trials if trial.rungs), default=-1)
    rows = [[trial.rungs.get(k, np.nan) for k in range(last + 1)] for trial in trials]
    return pd.DataFrame(
        rows, index=[t.number for t in trials], columns=range(last + 1), dtype=float
    )


def rank_correlations(table: pd.DataFrame) -> list[list[RankCorrelation]]:
    """Computes the correlation of every pair of rungs, over the trials that reached both.

    Args:
        table: See `values_by_rung`.
    """
    there = table.notna().to_numpy(dtype=int)
    counts = there.T @ there
    values = table.corr(method="spearman", min_periods=FEWEST).to_numpy()
    return [
        [
            RankCorrelation(None if np.isnan(value) else float(value), int(count))
            for value, count in zip(row, row_counts, strict=True)
        ]
        for row, row_counts in zip(values, counts, strict=True)
    ]
