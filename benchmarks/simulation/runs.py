"""Which searches are simulated, in as many processes as there are cores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay.runs import BASELINE
from benchmarks.replay.simulate import Outcome
from benchmarks.replay.surrogate import Surrogate
from benchmarks.simulation.cluster import HOUR, Cluster, Driver, Saving, simulate
from benchmarks.simulation.sources import ProductSource, RandomSource, random_outcomes

# Worker-hours that were paid for, with epochs of a minute, at which regret is read.
PAID = np.array([50, 100, 200, 400, 800, 1600])
CURVE = np.geomspace(5, 2000, 60)
GOALS = (0.2, 0.15, 0.1)

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One simulated search.

    Attributes:
        kind: What table it is for.
        sampler: ``random`` or ``tpe``.
        cluster: The machines.
        saving: When trials save.
        driver: What the driver takes.
        epoch_seconds: Of an average epoch.
        trials: Of the search.
        seed: Of trials and deaths.
    """

    kind: str
    sampler: str
    cluster: Cluster
    epoch_seconds: float
    trials: int
    seed: int
    saving: Saving = field(default_factory=Saving)
    driver: Driver = field(default_factory=Driver)

    @property
    def key(self) -> str:
        """The run as text."""
        return json.dumps(asdict(self), sort_keys=True)


_objective: Surrogate | None = None
_scale = (0.0, 0.0)
_outcomes: dict[tuple[int, int], list[Outcome]] = {}


def _begin(objective: Surrogate, scale: tuple[float, float]) -> None:
    global _objective, _scale
    _objective, _scale = objective, scale


def _drawn(trials: int, seed: int) -> list[Outcome]:
    assert _objective is not None
    if (trials, seed) not in _outcomes:
        _outcomes[trials, seed] = random_outcomes(_objective, trials, seed)
    return _outcomes[trials, seed]


def _simulate(run: Run) -> Row:
    assert _objective is not None
    best, median = _scale
    source = (
        RandomSource(_drawn(run.trials, run.seed))
        if run.sampler == "random"
        else ProductSource(_objective, run.trials, run.seed)
    )
    book = simulate(
        run.cluster,
        run.saving,
        run.driver,
        source,
        BASELINE,
        trials=run.trials,
        epoch_seconds=run.epoch_seconds,
        seed=run.seed,
    )

    def regret(hours: np.ndarray) -> list[float]:
        found = book.incumbent(hours * HOUR * run.epoch_seconds / 60)
        # Before any trial has ended, a search has nothing better than a guess.
        return [float(x) for x in (best - np.nan_to_num(found, nan=median)) / (best - median)]

    last = book.incumbent(np.array([np.inf]))[0]
    return {
        "run": run.key,
        "kind": run.kind,
        "sampler": run.sampler,
        "workers": run.cluster.workers,
        "failures": run.cluster.failures,
        "policy": run.saving.policy,
        "save_cost": run.saving.cost,
        "epoch_seconds": run.epoch_seconds,
        "trials": run.trials,
        "seed": run.seed,
        "ideal": run.driver == Driver(),
        "hours": book.duration / HOUR,
        "paid": book.paid / HOUR,
        "efficiency": book.efficiency,
        "lost": book.lost / book.paid,
        "saving": book.saving / book.paid,
        "waiting": book.waiting / book.paid,
        "starting": book.starting / book.paid,
        "driver": book.driver / book.duration,
        "results": book.results / book.duration,
        "proposals": run.trials / book.duration,
        "deaths": book.deaths,
        "failed": book.failed,
        "regret": regret(PAID),
        "curve": regret(CURVE),
        "final": float((best - last) / (best - median)),
        "time_to": {
            str(goal): book.time_to(best - goal * (best - median)) / HOUR for goal in GOALS
        },
    }


def simulate_all(
    runs: Sequence[Run],
    objective: Surrogate,
    scale: tuple[float, float],
    log: Path | None,
    processes: int,
) -> list[Row]:
    """One row a run, in their order; what `log` has already is read from there."""
    done: dict[str, Row] = {}
    if log is not None and log.exists():
        for line in log.read_text().splitlines():
            row = json.loads(line)
            done[row["run"]] = row
    missing = [run for run in runs if run.key not in done]
    if missing:
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(
            processes, initializer=_begin, initargs=(objective, scale)
        ) as pool:
            for future in as_completed([pool.submit(_simulate, run) for run in missing]):
                row = future.result()
                done[row["run"]] = row
                if log is not None:
                    log.parent.mkdir(parents=True, exist_ok=True)
                    with log.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    return [done[run.key] for run in runs]
