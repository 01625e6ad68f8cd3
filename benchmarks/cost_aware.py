"""Whether a sampler should know what a trial costs, on LCBench's surrogate with its own times.

As `benchmarks.lcbench`, but an epoch takes what the surrogate says: large batches of a narrow
network take a tenth of what small batches of a wide one take. The unit of time is a training of an
average configuration. With `search.sampler.cost_ratio` a configuration that costs r times as much
as the defaults is tried with probability ratio / r, else with other values of what makes it
expensive.

    python -m benchmarks.cost_aware --seeds 3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks import lcbench
from benchmarks._report import publish, table
from benchmarks.lcbench import EPOCHS, Task
from benchmarks.replay.simulate import Outcome

SPENT = (1.25, 2.5, 5.0, 10.0, 15.0, np.inf)
# Sampler and cost ratio.
WAYS: dict[str, tuple[str, float | None]] = {
    "random": ("random", None),
    "random, ratio 2": ("random", 2.0),
    "tpe": ("ntpe", None),
    "tpe, ratio 2": ("ntpe", 2.0),
    "tpe, ratio 1": ("ntpe", 1.0),
    "tpe, ratio 0.5": ("ntpe", 0.5),
}


def seconds(task: int, configurations: list[dict[str, Any]]) -> np.ndarray:
    """(N,) time of a whole training."""
    rows = np.array([[each[name] for name in lcbench.RANGES] for each in configurations])
    numbers = np.hstack([np.full((len(rows), 1), EPOCHS), rows]).astype(np.float32)
    kinds = np.full((len(rows), 1), task, np.int32)
    (found,) = lcbench.session().run(["output"], {"x_cat": kinds, "x_cont": numbers})
    times: np.ndarray = np.maximum(found[:, 0], 1e-3)
    return times


@cache
def average(task: int) -> float:
    return float(seconds(task, lcbench.drawn()).mean())


class Timed(Task):
    """A task whose trials take their own time."""

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        outcome = super().trial(params, draw)
        spent = float(seconds(self._number, [params])[0]) / average(self._number)
        return replace(outcome, epoch_time=spent / EPOCHS)

    def price(self, params: Mapping[str, Any]) -> float:
        own, base = seconds(self._number, [dict(params), self.defaults])
        return float(own / base)


def run(job: tuple[str, str, int, int]) -> tuple[str, str, int, list[float], float]:
    """One search: its regret, and how long all its trials took."""
    way, defaults, position, seed = job
    sampler, ratio = WAYS[way]
    task = Timed(position, lcbench.informed(position) if defaults == "informed" else None)
    trace = lcbench.search(task, sampler, seed, cost_ratio=ratio)
    return way, defaults, position, task.regret(trace, SPENT), trace.duration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--defaults", nargs="+", default=["middle", "informed"])
    args = parser.parse_args()
    tasks = range(min(args.tasks, len(lcbench.tasks())))
    jobs = [
        (way, defaults, position, seed)
        for defaults in args.defaults
        for way in args.ways
        for position in tasks
        for seed in range(args.seeds)
    ]
    found: dict[tuple[str, str], dict[int, list[list[float]]]] = {}
    with ProcessPoolExecutor(args.processes) as pool:
        for way, defaults, position, regret, duration in pool.map(run, jobs, chunksize=2):
            runs = found.setdefault((defaults, way), {})
            runs.setdefault(position, []).append([*regret, duration])
    publish("cost_aware", "Samplers that know prices", page(found), save=args.tasks >= 34)


def page(found: dict[tuple[str, str], dict[int, list[list[float]]]]) -> str:
    """Mean regret over tasks, and its difference to the same sampler without prices."""
    text = []
    for defaults in dict.fromkeys(key[0] for key in found):
        means = {
            way: np.stack([np.mean(runs, axis=0) for runs in by_task.values()])
            for (own, way), by_task in found.items()
            if own == defaults
        }
        rows = []
        for way, values in means.items():
            base = means.get(way.split(",")[0])
            count = len(values)
            row = [way]
            for place in range(len(SPENT)):
                cell = f"{values[:, place].mean():.1f}"
                if base is not None and base is not values:
                    gap = values[:, place] - base[:, place]
                    cell += f" ({gap.mean():+.1f} ± {gap.std(ddof=1) / np.sqrt(count):.1f})"
                row.append(cell)
            rows.append([*row, f"{values[:, -1].mean():.1f}"])
        header = ["sampler", *(f"{spent:g}" for spent in SPENT[:-1]), "end", "length"]
        text.append(f"## Defaults: {defaults}\n\n" + table(header, rows))
    return (
        "Regret in % after so many average trainings of each of 4 workers, mean over tasks (of "
        "their means over seeds); in brackets the difference to the same sampler without prices, "
        "with its standard error over tasks; `length` is when the last of 100 trials ended."
        "\n\n" + "\n\n".join(text)
    )


if __name__ == "__main__":
    main()
