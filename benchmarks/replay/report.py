"""Tables and the plot of a finished simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import table
from benchmarks.replay.runs import SPENT, WORKERS
from benchmarks.replay.spaces import DATASETS

SHOWN = (5, 10, 20, 40)
NAMES = {"random": "random", "tpe": "TPE", "mtpe": "multivariate TPE", "gp": "GP"}
Row = dict[str, Any]
Combination = tuple[str, str]


def plain(row: Row) -> bool:
    """Whether a run has the product's ways in all but sampler and scheduler."""
    return row["told"] == "pruned" and row["protected"] and not row["ahead"] and not row["history"]


def combination(row: Row) -> Combination:
    """Sampler and scheduler."""
    return row["sampler"], row["scheduler"]


def at(row: Row, spent: float) -> float:
    """Regret after so many full trainings were spent, in % of the data set's scale."""
    return 100 * float(np.interp(spent, SPENT, row["regret"])) / row["scale"]


def anytime(row: Row) -> float:
    """Mean regret from 5 to 100 full trainings spent, every doubling counted alike."""
    chosen = (SPENT >= 5) & (SPENT <= 100)
    return 100 * float(np.mean(np.array(row["regret"])[chosen])) / row["scale"]


def last(row: Row) -> float:
    """Regret at the end of the search, in % of the data set's scale."""
    return 100 * row["final"] / row["scale"]


def mean_error(rows: Iterable[Row], measure: Callable[[Row], float]) -> tuple[float, float]:
    """Mean over runs, data sets alike, with its standard error from the spread within each."""
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["workers"]].append(measure(row))
    means = [np.mean(values) for values in groups.values()]
    errors = [np.var(v, ddof=1) / len(v) if len(v) > 1 else np.nan for v in groups.values()]
    return float(np.mean(means)), float(np.sqrt(np.nanmean(errors) / len(groups)))


def _text(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1f} ± {pair[1]:.1f}"


def ranking(rows: Sequence[Row], workers: Sequence[int] = WORKERS) -> list[Combination]:
    """Combinations that have all these numbers of workers, best anytime regret first."""
    by: dict[Combination, list[Row]] = defaultdict(list)
    for row in rows:
        if plain(row) and row["workers"] in workers:
            by[combination(row)].append(row)
    whole = {c: r for c, r in by.items() if {row["workers"] for row in r} == set(workers)}
    return sorted(whole, key=lambda c: mean_error(whole[c], anytime)[0])


def main_table(
    rows: Sequence[Row], workers: Sequence[int], only: Sequence[Combination] = ()
) -> str:
    """Regret of every combination, best first."""
    chosen = [row for row in rows if plain(row) and row["workers"] in workers]
    by: dict[Combination, list[Row]] = defaultdict(list)
    for row in chosen:
        if not only or combination(row) in only:
            by[combination(row)].append(row)
    ranks = _ranks([row for found in by.values() for row in found])
    order = sorted(by, key=lambda c: mean_error(by[c], anytime)[0])
    lines = []
    for name in order:
        found = by[name]
        lines.append(
            [
                NAMES[name[0]],
                name[1],
                len({row["seed"] for row in found}),
                _text(mean_error(found, anytime)),
                *(_text(mean_error(found, lambda row, s=s: at(row, s))) for s in SHOWN),  # type: ignore[misc]
                _text(mean_error(found, last)),
                f"{np.mean([row['spent'] for row in found]):.0f}",
                f"{np.mean([row['finished'] for row in found]):.0f}",
                f"{ranks[name]:.1f}",
            ]
        )
    header = ["sampler", "scheduler", "seeds", "5 to 100", *map(str, SHOWN), "end"]
    return table([*header, "spent", "finished", "rank"], lines)


def _ranks(rows: Sequence[Row]) -> dict[Combination, float]:
    """Mean rank of each combination's anytime regret among all of one data set, workers, seed."""
    cells: dict[tuple[Any, ...], dict[Combination, float]] = defaultdict(dict)
    for row in rows:
        cells[row["dataset"], row["workers"], row["seed"]][combination(row)] = anytime(row)
    most = max(len(cell) for cell in cells.values())
    found: dict[Combination, list[float]] = defaultdict(list)
    for cell in cells.values():
        # Seeds that only the finalists have would rank them among themselves.
        if len(cell) == most:
            names = sorted(cell, key=lambda name: cell[name])
            for position, name in enumerate(names, 1):
                found[name].append(position)
    return defaultdict(lambda: np.nan, {n: float(np.mean(v)) for n, v in found.items()})


def workers_table(rows: Sequence[Row], only: Sequence[Combination]) -> str:
    """Anytime regret of some combinations by number of workers, and by data set."""
    lines = []
    for name in only:
        found = [row for row in rows if plain(row) and combination(row) == name]
        cells = [[row for row in found if row["workers"] == w] for w in WORKERS]
        cells += [[row for row in found if row["dataset"] == d] for d in DATASETS]
        texts = [_text(mean_error(cell, anytime)) if cell else "" for cell in cells]
        ends = [
            f"{100 * np.mean([row['final'] for row in found if row['dataset'] == d]):.2f}"
            for d in DATASETS
        ]
        lines.append([NAMES[name[0]], name[1], *texts, *ends])
    header = ["sampler", "scheduler", *(f"{w} workers" for w in WORKERS), *DATASETS]
    return table([*header, *(f"{d}, end, points" for d in DATASETS)], lines)


def pairs_table(rows: Sequence[Row], pairs: Sequence[tuple[str, Row, Row]]) -> str:
    """Differences of two settings that were run with the same seeds.

    Args:
        rows: All runs.
        pairs: A name, the setting, and what it is compared with (columns and their values).
    """
    lines = []
    for text, one, other in pairs:
        cells: list[dict[tuple[Any, ...], Row]] = []
        for wanted in (one, other):
            fixed = {"told": "pruned", "protected": True, "ahead": False, "history": 0} | wanted
            cells.append(
                {
                    (row["dataset"], row["workers"], row["seed"]): row
                    for row in rows
                    if all(row[name] == value for name, value in fixed.items())
                }
            )
        both = sorted(cells[0].keys() & cells[1].keys())
        if not both:
            continue
        columns = []
        for measure in (anytime, last, lambda row: row["spent"]):
            values = np.array([measure(cells[0][k]) - measure(cells[1][k]) for k in both])
            error = values.std(ddof=1) / np.sqrt(len(values))
            columns.append(f"{values.mean():+.1f} ± {error:.1f}")
        lines.append([text, len(both), *columns])
    return table(["", "pairs", "5 to 100", "end", "trainings spent"], lines)


def plot(rows: Sequence[Row], only: Sequence[Combination], path: Path) -> None:
    """Regret against simulated time, a panel for each number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(WORKERS), figsize=(15, 4), sharey=True)
    for workers, axis in zip(WORKERS, axes, strict=True):
        for name in only:
            found = [
                row
                for row in rows
                if plain(row) and row["workers"] == workers and combination(row) == name
            ]
            if not found:
                continue
            curves = np.array([100 * np.array(row["regret"]) / row["scale"] for row in found])
            label = f"{NAMES[name[0]]}, {name[1]}"
            (line,) = axis.plot(SPENT / workers, curves.mean(0), label=label, linewidth=1.4)
            end = float(np.mean([row["duration"] for row in found]))
            value = np.interp(end, SPENT / workers, curves.mean(0))
            axis.plot([end], [value], "o", color=line.get_color(), markersize=4)
        axis.set(xscale="log", yscale="log", title=f"{workers} worker{'s' * (workers > 1)}")
        axis.set_xlabel("simulated time, in full trainings")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("regret, % of (best - median)")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
