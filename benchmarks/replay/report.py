"""Tables and the plot of a finished simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import table
from benchmarks.replay.runs import SPENT, WORKERS
from benchmarks.replay.spaces import DATASETS

SHOWN = (10, 20, 40, 80)
# Full trainings until the first trials have ended: the slowest take 1.4 times the average.
FIRST = 1.4
NAMES = {
    "random": "random",
    "tpe": "TPE",
    "ntpe": "TPE near the defaults",
    "mtpe": "multivariate TPE",
    "gp": "GP",
}
# Full trainings: what a small search has.
EARLY = 16
TICKS = (1, 1.5, 2, 4, 8, 16, 32, 64, 128)
Row = dict[str, Any]
Combination = tuple[str, str]


_PLAIN = {
    "told": "pruned", "protected": True, "ahead": False, "history": 0, "trials": 100,
    "defaults": "own",
}  # fmt: skip


def plain(row: Row) -> bool:
    """Whether a run has the product's ways in all but sampler and scheduler."""
    return all(row[name] == value for name, value in _PLAIN.items())


def combination(row: Row) -> Combination:
    """Sampler and scheduler."""
    return row["sampler"], row["scheduler"]


def at(row: Row, spent: float) -> float:
    """Regret after so many full trainings were spent, in % of the data set's scale."""
    return 100 * float(np.interp(spent, SPENT, row["regret"])) / row["scale"]


def anytime(row: Row) -> float:
    """Mean regret from 5 to 100 full trainings spent, every doubling counted alike.

    It begins later where many workers have to end their first trials.
    """
    low, high = max(5.0, FIRST * row["workers"]), max(100.0, 2.0 * row["workers"])
    chosen = [
        value for spent, value in zip(SPENT, row["regret"], strict=True) if low <= spent <= high
    ]
    return 100 * float(np.mean(chosen)) / row["scale"]


def last(row: Row) -> float:
    """Regret at the end of the search, in % of the data set's scale."""
    return 100 * row["final"] / row["scale"]


def mean_error(rows: Iterable[Row], measure: Callable[[Row], float]) -> tuple[float, float]:
    """Mean over runs, data sets alike, with its standard error from the spread within each."""
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["workers"]].append(measure(row))
    means = [float(np.mean(values)) for values in groups.values()]
    errors = [float(np.var(v, ddof=1)) / len(v) if len(v) > 1 else np.nan for v in groups.values()]
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


def main_table(rows: Sequence[Row], workers: int, only: Sequence[Combination] = ()) -> str:
    """Regret of every combination with so many workers, best first."""
    by: dict[Combination, list[Row]] = defaultdict(list)
    for row in rows:
        if plain(row) and row["workers"] == workers and (not only or combination(row) in only):
            by[combination(row)].append(row)
    ranks = _ranks([row for found in by.values() for row in found])
    shown = [spent for spent in SHOWN if spent >= FIRST * workers]
    lines = []
    for name in sorted(by, key=lambda c: mean_error(by[c], anytime)[0]):
        found = by[name]
        lines.append(
            [
                NAMES[name[0]],
                name[1],
                len({row["seed"] for row in found}),
                _text(mean_error(found, anytime)),
                f"{ranks[name]:.1f}",
                *(_text(mean_error(found, partial(at, spent=spent))) for spent in shown),
                _text(mean_error(found, last)),
                f"{np.mean([row['spent'] for row in found]):.0f}",
                f"{np.mean([row['finished'] for row in found]):.0f}",
                f"{np.mean([row['duration'] for row in found]):.1f}",
            ]
        )
    header = ["sampler", "scheduler", "seeds", "mean", "rank", *(f"at {s}" for s in shown)]
    return table([*header, "end", "spent", "finished", "time"], lines)


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
        seeds = len({row["seed"] for row in found})
        lines.append([NAMES[name[0]], name[1], seeds, *texts, *ends])
    header = ["sampler", "scheduler", "seeds", *(f"{w} workers" for w in WORKERS), *DATASETS]
    return table([*header, *(f"{d}, end, points" for d in DATASETS)], lines)


def pairs_table(rows: Sequence[Row], pairs: Sequence[tuple[str, Row, Row]]) -> str:
    """Differences of two settings that were run with the same seeds.

    Args:
        rows: All runs.
        pairs: A name, the setting, and what it is compared with (columns and their values);
            where these name no scheduler, runs of all schedulers.
    """
    lines = []
    for text, one, other in pairs:
        cells: list[dict[tuple[Any, ...], Row]] = []
        for wanted in (one, other):
            fixed = _PLAIN | wanted
            found = [row for row in rows if all(row[key] == fixed[key] for key in fixed)]
            names = ["dataset", "workers", "seed"]
            if "scheduler" not in wanted:
                names.append("scheduler")
            cells.append({tuple(row[name] for name in names): row for row in found})
        both = sorted(cells[0].keys() & cells[1].keys())
        if not both:
            continue
        columns = []
        for measure in (anytime, lambda row: at(row, EARLY), last, lambda row: row["spent"]):
            # One seed has the same chance whatever the workers: it counts once a data set.
            differences: dict[tuple[str, int], list[float]] = defaultdict(list)
            for k in both:
                differences[k[0], k[2]].append(measure(cells[0][k]) - measure(cells[1][k]))
            values = np.array([np.mean(found) for found in differences.values()])
            error = values.std(ddof=1) / np.sqrt(len(values))
            columns.append(f"{values.mean():+.1f} ± {error:.1f}")
        lines.append([text, len(both), *columns])
    return table(["", "pairs", "mean", f"at {EARLY}", "end", "trainings spent"], lines)


def plot(rows: Sequence[Row], only: Sequence[Combination], path: Path) -> None:
    """Regret against simulated time, a panel for each number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(WORKERS), figsize=(15, 4), sharey=True)
    for workers, axis in zip(WORKERS, axes, strict=True):
        for position, name in enumerate(only):
            found = [
                row
                for row in rows
                if plain(row) and row["workers"] == workers and combination(row) == name
            ]
            if not found:
                continue
            curves = np.array([100 * np.array(row["regret"]) / row["scale"] for row in found])
            label = f"{NAMES[name[0]]}, {name[1]}"
            (line,) = axis.plot(
                SPENT / workers, curves.mean(0), label=label, linewidth=1.4, color=f"C{position}"
            )
            end = float(np.mean([row["duration"] for row in found]))
            value = np.interp(end, SPENT / workers, curves.mean(0))
            axis.plot([end], [value], "o", color=line.get_color(), markersize=4)
        axis.set(xscale="log", yscale="log", xlim=(0.8, 130 / workers), ylim=(9, 120))
        axis.set(title=f"{workers} worker{'s' * (workers > 1)}")
        axis.set_xticks([tick for tick in TICKS if 0.8 <= tick <= 130 / workers])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_xlabel("simulated time, in full trainings")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("regret, % of (best - median)")
    handles = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    axes[0].legend(handles.values(), handles.keys(), fontsize=6, loc="upper right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
