"""Which searches are simulated, and the table of their results."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.replay.schedulers import (
    ASHA,
    HYPERBAND,
    MEDIAN,
    NONE,
    SCHEDULERS,
    SchedulerName,
)
from benchmarks.replay.simulate import Setting, simulate
from benchmarks.replay.spaces import DATASETS, EPOCHS
from benchmarks.replay.surrogate import Surrogate

WORKERS = (1, 4, 16, 64)
# Training spent, in full trainings: the clock times the workers.
SPENT = np.round(np.geomspace(1, 128, 43), 3)
# What others are compared with; with multivariate TPE it was the default before this replay.
BASELINE = SchedulerName("asha", 3, 3)
DEFAULT = ("ntpe", SchedulerName("asha", 5, 2))
# The default without start-up trials near the defaults.
ANYWHERE = ("tpe", DEFAULT[1])
Run = tuple[str, Setting, int]


def screening() -> list[Setting]:
    """Every setting that gets five seeds, the ones that the product needs first."""
    found: list[Setting] = []
    some = (NONE, BASELINE, SchedulerName("asha", 1, 3), MEDIAN)
    for scheduler in some:
        found += [Setting(sampler, scheduler) for sampler in ("mtpe", "random", "tpe")]
    every = (NONE, MEDIAN, *ASHA, *HYPERBAND)
    found += [Setting(sampler, one) for one in every for sampler in ("random", "mtpe", "tpe")]
    found += [Setting("ntpe", one) for one in (DEFAULT[1], NONE)]
    found += [Setting(*one, defaults="random") for one in (DEFAULT, ANYWHERE)]
    for scheduler in some[1:3]:
        found += [Setting("mtpe", scheduler, told=told) for told in ("complete", "nothing")]
    single = [Setting(s, o, protected=False) for o in (BASELINE, NONE) for s in ("mtpe", "random")]
    single += [Setting("mtpe", BASELINE, workers=w, ahead=True) for w in (1, 4, 16)]
    single += [Setting(sampler, BASELINE, history=30) for sampler in ("mtpe", "tpe")]
    single += [Setting(*DEFAULT, history=most) for most in (30, 60)]
    single += [Setting(*DEFAULT, workers=w, ahead=True) for w in (1, 4, 16)]
    # What the time that ASHA saves could buy.
    single += [Setting(sampler, BASELINE, trials=240) for sampler in ("mtpe", "random")]
    # What tells most comes first.
    first, second = (
        [dataclasses.replace(setting, workers=w) for w in pair for setting in found]
        for pair in ((4, 16), (1, 64))
    )
    return list(dict.fromkeys([*first, *single, *second]))


def finals(best: list[tuple[str, SchedulerName]]) -> list[Setting]:
    """The best combinations again, with all numbers of workers."""
    return [Setting(sampler, one, workers=w) for sampler, one in best for w in WORKERS]


def runs(settings: list[Setting], seeds: range) -> Iterator[Run]:
    """Every setting on every data set with every seed."""
    for setting in settings:
        for name in DATASETS:
            yield from ((name, setting, seed) for seed in seeds)


def gp_runs(seeds: range) -> list[Run]:
    """The GP sampler with every scheduler and number of workers.

    It thinks for a tenth of a second a trial and more: whole rounds of every scheduler come
    first, so that a run that was stopped has as many seeds of each.
    """
    every = [Setting("gp", one, workers=w) for w in (4, 16, 1, 64) for one in SCHEDULERS]
    return sorted(runs(every, seeds), key=lambda run: run[2])


def key(run: Run) -> str:
    """A run as text."""
    setting = dataclasses.asdict(run[1])
    # Later fields: runs that are kept from before them do not name them.
    for name, before in (("defaults", "own"), ("promote", False)):
        if setting[name] == before:
            del setting[name]
    return json.dumps([run[0], setting, run[2]])


_surrogates: dict[str, Surrogate] = {}
_scales: dict[str, tuple[float, float]] = {}


def _begin(surrogates: dict[str, Surrogate], scales: dict[str, tuple[float, float]]) -> None:
    _surrogates.update(surrogates)
    _scales.update(scales)


def _simulate(run: Run) -> dict[str, Any]:
    name, setting, seed = run
    trace = simulate(_surrogates[name], setting, seed)
    best, median = _scales[name]
    found = trace.incumbent(SPENT / setting.workers)
    # Before any trial has ended, a search has nothing better than a guess.
    regret = best - np.where(np.isnan(found), median, found)
    last = trace.incumbent(np.array([np.inf]))[0]
    return {
        "run": key(run),
        "dataset": name,
        "sampler": setting.sampler,
        "scheduler": setting.scheduler.text,
        "workers": setting.workers,
        "told": setting.told,
        "protected": setting.protected,
        "ahead": setting.ahead,
        "history": setting.history,
        "trials": setting.trials,
        "defaults": setting.defaults,
        "seed": seed,
        "finished": len(trace.ends),
        "spent": round(sum(trace.epochs) / EPOCHS, 4),
        "duration": round(trace.duration, 4),
        "scale": best - median,
        "final": round(float(best - last), 6),
        "regret": [round(float(value), 6) for value in regret],
    }


def finished(log: Path) -> list[dict[str, Any]]:
    """Results that are written; a last line that was cut short is not."""
    rows = []
    for line in log.read_text().splitlines() if log.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append({"defaults": "own", **json.loads(line)})
    return rows


def go_on(log: Path, path: Path) -> None:
    """Adds the results that were published to `log`, where it does not have them."""
    there = {row["run"] for row in finished(log)}
    names = {one.text: one for one in SCHEDULERS}
    fields = [one.name for one in dataclasses.fields(Setting)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for row in pq.read_table(path).to_pylist():
            # Results of earlier versions lack what these could not do.
            values = {name: row[name] for name in fields if name in row}
            setting = Setting(**values | {"scheduler": names[row["scheduler"]]})
            run = key((row["dataset"], setting, row["seed"]))
            if run not in there:
                file.write(json.dumps({"run": run, **row}) + "\n")


def simulate_all(
    chosen: list[Run], surrogates: dict[str, Surrogate], log: Path, processes: int
) -> list[dict[str, Any]]:
    """Results of the runs; what `log` has already is read from there.

    Returns:
        One row a run, in the order of the runs.
    """
    done = {row["run"]: row for row in finished(log)}
    scales = {name: surrogate.best() for name, surrogate in surrogates.items()}
    missing = [run for run in chosen if key(run) not in done]
    if missing:
        log.parent.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        with (
            ProcessPoolExecutor(
                processes, initializer=_begin, initargs=(surrogates, scales)
            ) as pool,
            log.open("a") as file,
        ):
            for row in pool.map(_simulate, missing, chunksize=5):
                file.write(json.dumps(row) + "\n")
                file.flush()
                done[row["run"]] = row
    return [done[key(run)] for run in chosen]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes results as a small Parquet file."""
    columns = {
        name: [row[name] for row in rows] for name in rows[0] if name not in ("run", "regret")
    }
    curves = pa.array([row["regret"] for row in rows], pa.list_(pa.float32(), len(SPENT)))
    pq.write_table(pa.table(columns | {"regret": curves}), path, compression="zstd")
