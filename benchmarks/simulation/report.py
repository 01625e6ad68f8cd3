"""Tables and the plot of simulated searches."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import table
from benchmarks.simulation.runs import CURVE, GOALS, PAID, Row

POLICIES = {"none": "none", "rungs": "at rungs", "product": "product"}


def page(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Everything, as Markdown."""
    tpe = 1 / (options.proposal + options.proposal_running * max(options.workers))
    parts = [
        f"{options.trials:,} trials of up to 27 epochs ({options.data}), ASHA with grace 3 and "
        f"reduction 3. The driver takes {1000 * options.result:.1f} ms a result and "
        f"{1000 * options.trial:.1f} ms a trial, a proposal of TPE "
        f"{1000 * options.proposal:.1f} ms and {1e6 * options.proposal_running:.0f} us for each "
        f"running trial (at {max(options.workers):,} workers: {tpe:.0f} proposals/s). Efficiency "
        "is the time of the epochs that counted over the worker time that was paid; what is "
        "missing to 100 % is listed, and what is still missing then is workers that have "
        "nothing to do while the last trials end, or the first are handed out.",
        "## Can the driver keep up?",
        "No deaths, random trials (TPE's pace). `needed` is what a driver that takes no time "
        "would be asked for.",
        epochs_table(rows),
        "## Deaths and checkpoints",
        "Epochs of a minute. Efficiency in %, and in brackets what was trained twice.",
        deaths_table(rows),
        "Where the time of the paid workers goes at 20 % an hour, checkpoints on a disk:",
        shares_table(rows),
        "## Regret at equal cost",
        "In % of (best - median), after so many worker-hours paid; 5 % of the nodes die an hour, "
        "the product's checkpoints on a disk, epochs of a minute. `hours to` is wall-clock time "
        "until the best trial so far is so good.",
        regret_table(rows),
        "## The head alone",
        "Epochs of 0.1 s, 20 % of the nodes die an hour: trials end sooner than nodes.",
        head_table(rows),
    ]
    return "\n\n".join(parts)


def _mean(rows: Sequence[Row], read: Callable[[Row], float]) -> float:
    return float(np.mean([read(row) for row in rows])) if rows else math.nan


def _where(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _values(rows: Sequence[Row], key: str) -> list[Any]:
    return sorted({row[key] for row in rows})


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def epochs_table(rows: Sequence[Row]) -> str:
    """Pace of the driver against what workers ask for."""
    lines = []
    for seconds in _values(_where(rows, kind="epochs"), "epoch_seconds"):
        for workers in _values(rows, "workers"):
            found = _where(rows, kind="epochs", epoch_seconds=seconds, workers=workers)
            ideal, real = _where(found, ideal=True), _where(found, ideal=False)
            if ideal and real:
                lines.append(
                    [
                        f"{seconds:g} s",
                        workers,
                        f"{ideal[0]['proposals']:.2f}",
                        f"{real[0]['proposals']:.2f}",
                        f"{ideal[0]['results']:.2f}",
                        f"{real[0]['results']:.2f}",
                        f"{100 * real[0]['driver']:.0f}",
                        _percent(real[0]["waiting"]),
                        _percent(ideal[0]["efficiency"]),
                        _percent(real[0]["efficiency"]),
                        f"{real[0]['hours']:.2f}",
                    ]
                )
    header = [
        "epoch", "workers", "proposals/s needed", "proposals/s", "results/s needed", "results/s",
        "driver busy, %", "waiting for it, %", "efficiency with none, %", "efficiency, %",
        "hours",
    ]  # fmt: skip
    return table(header, lines)


def deaths_table(rows: Sequence[Row]) -> str:
    """Efficiency by rate, way to save and workers."""
    found = _where(rows, kind="deaths")
    workers = _values(found, "workers")
    lines = []
    for rate in _values(found, "failures"):
        for policy, name in POLICIES.items():
            for cost in _values(_where(found, policy=policy), "save_cost"):
                cells = []
                for count in workers:
                    wanted = {"failures": rate, "policy": policy, "save_cost": cost}
                    same = _where(found, workers=count, **wanted)
                    efficiency = _mean(same, lambda row: row["efficiency"])
                    lost = _mean(same, lambda row: row["lost"])
                    cells.append(f"{_percent(efficiency)} ({_percent(lost)})")
                place = "-" if policy == "none" else f"{cost:g} s"
                lines.append([f"{100 * rate:g} %", name, place, *cells])
    header = ["deaths an hour", "checkpoints", "each takes", *(f"{n:,} workers" for n in workers)]
    return table(header, lines)


def shares_table(rows: Sequence[Row]) -> str:
    """Where paid time goes."""
    found = _where(rows, kind="deaths", failures=0.2)
    lines = []
    for workers in _values(found, "workers"):
        for policy, name in POLICIES.items():
            same = _where(found, workers=workers, policy=policy)
            cheap = _where(same, save_cost=min(_values(same, "save_cost"), default=0))
            if not cheap:
                continue
            shares = [
                _mean(cheap, lambda row, key=key: row[key])  # type: ignore[misc]
                for key in ("efficiency", "lost", "saving", "waiting", "starting")
            ]
            deaths = _mean(cheap, lambda row: row["deaths"])
            failed = _mean(cheap, lambda row: row["failed"])
            hours = _mean(cheap, lambda row: row["hours"])
            cells = [_percent(share) for share in (*shares, 1 - sum(shares))]
            lines.append([workers, name, *cells, f"{deaths:.0f}", f"{failed:g}", f"{hours:.1f}"])
    header = [
        "workers", "checkpoints", "counted", "trained twice", "saving", "driver", "starting",
        "nothing to do", "nodes died", "trials given up", "hours",
    ]  # fmt: skip
    return table(header, lines)


def regret_table(rows: Sequence[Row]) -> str:
    """Regret by worker-hours, random and TPE."""
    disk = {"policy": "product", "failures": 0.05}
    random = _where(rows, kind="deaths", **disk)
    random = _where(random, save_cost=min(_values(random, "save_cost"), default=0))
    lines = []
    for name, found in (("random", random), ("TPE", _where(rows, kind="tpe"))):
        for workers in _values(found, "workers"):
            same = _where(found, workers=workers)
            curve = np.mean([row["regret"] for row in same], axis=0)
            goals = [
                _mean(same, lambda row, goal=goal: row["time_to"][str(goal)])  # type: ignore[misc]
                for goal in GOALS
            ]
            lines.append(
                [
                    name,
                    workers,
                    *(_percent(value) for value in curve),
                    _percent(_mean(same, lambda row: row["final"])),
                    *("-" if math.isinf(goal) else f"{goal:.2f}" for goal in goals),
                    f"{_mean(same, lambda row: row['hours']):.1f}",
                ]
            )
    header = [
        "sampler", "workers", *(f"at {hours} h" for hours in PAID), "end",
        *(f"hours to {100 * goal:g}" for goal in GOALS), "hours in all",
    ]  # fmt: skip
    return table(header, lines)


def head_table(rows: Sequence[Row]) -> str:
    """Short trials on nodes that die."""
    lines = [
        [
            row["workers"],
            _percent(row["efficiency"]),
            _percent(row["lost"]),
            _percent(row["waiting"]),
            row["deaths"],
            f"{60 * row['hours']:.1f}",
        ]
        for row in sorted(_where(rows, kind="head"), key=lambda row: int(row["workers"]))
    ]
    header = ["workers", "efficiency, %", "trained twice, %", "driver, %", "nodes died", "minutes"]
    return table(header, lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Four panels: deaths, the driver, regret, time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    deaths, driver, regret, hours = axes.flat
    found = _where(rows, kind="deaths")
    cheap = min(_values(_where(found, policy="product"), "save_cost"))
    styles = {"none": ":", "rungs": "--", "product": "-"}
    for position, rate in enumerate(_values(found, "failures")):
        for policy, style in styles.items():
            same = _where(found, failures=rate, policy=policy)
            same = [row for row in same if row["save_cost"] in (0.0, cheap)]
            xs = _values(same, "workers")
            ys = [100 * _mean(_where(same, workers=n), lambda row: row["efficiency"]) for n in xs]
            label = f"{100 * rate:g} % an hour" if policy == "product" else None
            deaths.plot(xs, ys, style, color=f"C{position}", label=label, linewidth=1.3)
    deaths.set_title("nodes die; no checkpoints (dotted), at rungs (dashed), product")
    found = _where(rows, kind="epochs")
    for position, seconds in enumerate(_values(found, "epoch_seconds")):
        for ideal, style in ((True, ":"), (False, "o-")):
            same = _where(found, epoch_seconds=seconds, ideal=ideal)
            xs = _values(same, "workers")
            ys = [100 * _mean(_where(same, workers=n), lambda row: row["efficiency"]) for n in xs]
            label = None if ideal else f"epochs of {seconds:g} s"
            driver.plot(
                xs, ys, style, color=f"C{position}", label=label, linewidth=1.3, markersize=3
            )
    driver.set_title("where the driver saturates (dotted: a driver that takes no time)")
    curves = {"random": _where(rows, kind="deaths", failures=0.05, policy="product")}
    curves["TPE"] = _where(rows, kind="tpe")
    for (name, found), style in zip(curves.items(), ("-", "--"), strict=True):
        found = _where(found, save_cost=min(_values(found, "save_cost"), default=0))
        for position, workers in enumerate(_values(rows, "workers")):
            same = _where(found, workers=workers)
            if not same:
                continue
            mean = 100 * np.mean([row["curve"] for row in same], axis=0)
            color, label = f"C{position}", f"{name}, {workers:,}"
            regret.plot(CURVE, mean, style, color=color, label=label, linewidth=1.3)
            time = _mean(same, lambda row: row["hours"])
            hours.plot([workers], [time], "o" if style == "-" else "x", color=color)
    regret.set(title="regret at equal cost, 5 % an hour", xscale="log", yscale="log")
    regret.set(xlabel="worker-hours paid", ylabel="regret, % of (best - median)")
    hours.set(title="hours of a search, epochs of a minute", xscale="log", yscale="log")
    hours.set(xlabel="workers", ylabel="hours (x: TPE)")
    for axis in (deaths, driver):
        axis.set(xscale="log", xlabel="workers", ylabel="efficiency, %", ylim=(0, 102))
    for axis in axes.flat:
        axis.grid(alpha=0.3, which="both")
    for axis in (deaths, driver, regret):
        axis.legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
