"""Searches on LCBench's surrogate: regret early, and at the end, with one beginning or another.

The surrogate (`lcbench/model.onnx` in the folder that GSFL_TUNE_REAL_DATA names; YAHPO Gym's, data
of Zimmer, Lindauer and Hutter) says what a multilayer perceptron reaches on each of 34 tabular
tasks after 1 to 52 epochs. Four simulated workers take up to 100 trials that the product's sampler
proposes and its ASHA stops (rungs from epoch 5 by factor 2). Regret is the difference between the
best of 600 random configurations of the task and the best finished trial, in % of the difference
between that best and the median of the 600, after so many trainings a worker. Without defaults in
the file the first trial is the middle of each range. `near the middle` is a file that names the
middle as its defaults, `informed` one with the best mean rank on all other tasks.

`promote` pauses trials in place of stopping them, and continues those that later ones show to be
good enough (`search.scheduler.promote`).

`warm` gives a search the configurations that four earlier searches on other tasks found best, as
`search.warm_start` would choose them (tasks are drawn by the seed; their own defaults are the
middle). It is the only one that knows other tasks, beside the informed defaults.

    python -m benchmarks.lcbench                 # some twenty minutes of one core
    python -m benchmarks.lcbench --seeds 1 --tasks 4
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks._report import publish, table
from benchmarks.replay.schedulers import Scheduler
from benchmarks.replay.simulate import Outcome, Setting, Trace, simulate
from gsfl_tune.experiment.distributions import Float, Integer
from gsfl_tune.experiment.space import Parameter, Space
from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.training.timeline import Timeline

EPOCHS, WORKERS, TRIALS = 52, 4, 100
SPENT = (1.25, 2.5, 5.0, 10.0, np.inf)
# In the order of the model's inputs, after the epoch.
RANGES = {
    "batch_size": Integer(16, 512, log=True),
    "learning_rate": Float(1e-4, 0.1, log=True),
    "momentum": Float(0.1, 0.99),
    "weight_decay": Float(1e-5, 0.1),
    "num_layers": Integer(1, 5),
    "max_units": Integer(64, 1024, log=True),
    "max_dropout": Float(0.0, 1.0),
}
# What the search may know at its begin.
BEGINNINGS = {
    "random, ASHA": ("random", "middle"),
    "anywhere": ("tpe", "middle"),
    "near the middle": ("ntpe", "chosen"),
    "no defaults given": ("ntpe", "middle"),
    "no defaults given, promote": ("ntpe", "middle, promote"),
    "informed defaults": ("ntpe", "informed"),
    "warm start": ("ntpe", "warm"),
}


@dataclass(frozen=True)
class Halving:
    """ASHA at the rungs that the product would have for 52 epochs."""

    text: str = "asha grace 5 reduction 2"

    def create(self, seed: int) -> Scheduler:
        timeline = Timeline((EPOCHS, 0))
        rungs = timeline.rungs(timeline, grace=5, reduction=2)

        class Rungs:
            def __init__(self) -> None:
                self.rungs = [rung.epoch for rung in rungs]
                self._asha = Asha(len(rungs), reduction=2, seed=seed)

            def record(self, number: int, k: int, value: float, *, protected: bool = False) -> bool:
                return self._asha.record(number, k, value, protected=protected)

            def promotable(self, paused: Mapping[int, int]) -> int | None:
                return self._asha.promotable(paused)

        return Rungs()


@cache
def folder() -> Path:
    root = os.environ.get("GSFL_TUNE_REAL_DATA")
    if root is None or not Path(root, "lcbench", "model.onnx").exists():
        raise SystemExit("GSFL_TUNE_REAL_DATA names no folder that has lcbench/model.onnx")
    return Path(root, "lcbench")


@cache
def session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder() / "model.onnx"), options)


def tasks() -> dict[str, int]:
    """The model's number of every task."""
    found = json.loads((folder() / "encoding.json").read_text())["OpenML_task_id"]
    return {name: number for name, number in found.items() if name not in ("#na#", "167083")}


def curves(task: int, configurations: Sequence[dict[str, Any]]) -> np.ndarray:
    """(N, 52) validation accuracy in percent."""
    rows = np.array([[each[name] for name in RANGES] for each in configurations], np.float32)
    epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(rows))[:, None]
    numbers = np.hstack([epochs, np.repeat(rows, EPOCHS, axis=0)])
    kinds = np.full((len(numbers), 1), task, np.int32)
    (found,) = session().run(["output"], {"x_cat": kinds, "x_cont": numbers})
    accuracies: np.ndarray = found[:, 1].reshape(len(rows), EPOCHS)
    return accuracies


@cache
def drawn() -> list[dict[str, Any]]:
    """600 random configurations, the same for all tasks."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        each: dict[str, Any] = {}
        for name, draw in RANGES.items():
            low, high = float(draw.low), float(draw.high)
            if draw.log:
                value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            else:
                value = float(rng.uniform(low, high))
            each[name] = round(value) if isinstance(draw, Integer) else value
        found.append(each)
    return found


@cache
def known() -> np.ndarray:
    """(tasks, 600) final accuracies."""
    return np.stack([curves(number, drawn())[:, -1] for number in tasks().values()])


def informed(position: int) -> dict[str, Any]:
    """The configuration with the best mean rank on all other tasks."""
    others = np.delete(known(), position, axis=0)
    ranks = np.argsort(np.argsort(-others, axis=1), axis=1).mean(axis=0)
    return drawn()[int(np.argmin(ranks))]


class Task:
    """One task as an objective.

    Attributes:
        best: Final accuracies of the 600: the best, and their median.
    """

    def __init__(
        self, position: int, defaults: dict[str, Any] | None = None, earlier: Any = ()
    ) -> None:
        self._number = list(tasks().values())[position]
        parameters = []
        for name, draw in RANGES.items():
            own = draw if defaults is None else replace(draw, default=defaults[name])
            parameters.append(Parameter(name, name, own))
        self.space = Space({}, parameters)
        self.defaults = {each.name: each.distribution.default for each in parameters}
        self.earlier = list(earlier)
        self.asked: list[tuple[dict[str, Any], float]] = []
        self.best = float(known()[position].max()), float(np.median(known()[position]))

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        curve = curves(self._number, [params])[0]
        self.asked.append((dict(params), float(curve[-1])))
        return Outcome(curve, float(curve[-1]), 1 / EPOCHS)

    def regret(self, trace: Trace, spent: Sequence[float] = SPENT) -> list[float]:
        best, median = self.best
        found = trace.incumbent(np.array(spent))
        return [float(each) for each in 100 * (best - np.where(np.isnan(found), median, found))
                / (best - median)]  # fmt: skip


def search(
    task: Task, sampler: str, seed: int, *, promote: bool = False, cost_ratio: float | None = None
) -> Trace:
    setting = Setting(
        sampler,
        Halving(),  # type: ignore[arg-type]
        workers=WORKERS,
        trials=TRIALS,
        promote=promote,
        cost_ratio=cost_ratio,
    )
    return simulate(task, setting, seed)


@cache
def best_of(position: int, seed: int) -> dict[str, Any]:
    """What a search from the middle found on a task."""
    task = Task(position)
    search(task, "ntpe", seed)
    return max(task.asked, key=lambda pair: pair[1])[0]


def run(job: tuple[str, int, int]) -> tuple[str, int, int, list[float]]:
    """One search."""
    name, position, seed = job
    sampler, defaults = BEGINNINGS[name]
    task = Task(position)
    if defaults == "informed":
        task = Task(position, informed(position))
    elif defaults == "chosen":
        task = Task(position, {name: draw.default for name, draw in RANGES.items()})
    elif defaults == "warm":
        others = [each for each in range(len(tasks())) if each != position]
        chosen = np.random.default_rng([seed, position]).choice(others, 4, replace=False)
        task = Task(position, earlier=[best_of(int(each), seed) for each in chosen])
    promote = defaults.endswith("promote")
    return (*job, task.regret(search(task, sampler, seed, promote=promote)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--beginning", nargs="+", choices=BEGINNINGS, default=list(BEGINNINGS))
    args = parser.parse_args()
    jobs = [
        (name, position, seed)
        for name in args.beginning
        for position in range(min(args.tasks, len(tasks())))
        for seed in range(args.seeds)
    ]
    found: dict[str, dict[int, list[list[float]]]] = {}
    with ProcessPoolExecutor(args.processes) as pool:
        for name, position, _, regret in pool.map(run, jobs, chunksize=2):
            found.setdefault(name, {}).setdefault(position, []).append(regret)
    text = page(found)
    publish("lcbench", "Searches on LCBench's surrogate", text, save=args.tasks >= 34)


def page(found: dict[str, dict[int, list[list[float]]]]) -> str:
    """Mean regret over tasks, with the standard error over tasks."""
    means = {
        name: np.stack([np.mean(runs, axis=0) for runs in by_task.values()])
        for name, by_task in found.items()
    }
    stacked = np.stack(list(means.values()))
    rows = []
    for place, (name, values) in enumerate(means.items()):
        errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        cells = [f"{m:.1f} ± {e:.1f}" for m, e in zip(values.mean(axis=0), errors, strict=True)]
        first = int((stacked[:, :, 0].argmin(axis=0) == place).sum())
        rows.append([name, *cells, first])
    header = ["begin", *(f"{spent:g}" for spent in SPENT[:-1]), "end", "best task at 1.25"]
    return (
        f"Regret in %, mean and standard error over {stacked.shape[1]} tasks (their means over "
        "seeds), after so many trainings of each of 4 workers; the last column counts the tasks on "
        "which a beginning is best there.\n\n" + table(header, rows)
    )


if __name__ == "__main__":
    main()
