"""Results a second of the driver with trials that do nothing: ours against plain Ray Tune.

Both sides run the same number of trials with three results each on the same Ray, with TPE
(multivariate, grouped, constant liar) over the same space and ASHA on, the same trials at once,
one class trainable each with reused actors, and nothing to compute: what is left is the cost of
the driver itself. Plain Ray Tune is what a user writes: `Tuner` with `OptunaSearch` and
`ASHAScheduler`, an in-memory study, no checkpoints, and Ray's defaults for everything else. Ours
writes every result durably (journal with fsync), which the other side does not.

The rate of the second half against the first says whether the driver slows down as trials pile
up. 1,000 trials take some minutes on two cores, `--trials 3000` several times that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray import tune

from benchmarks._report import publish, table
from benchmarks._space import experiment

RESULTS = 3


class Stamps:
    """When results came in; a file, because Ray copies callbacks about."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, count: int = 1) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.time()}\n" * count)

    def read(self) -> list[float]:
        return [float(line) for line in self.path.read_text().split()]


class Ours(tune.Trainable):  # type: ignore[misc]
    """A trial of ours that does nothing."""

    def setup(self, config: dict[str, Any]) -> None:
        self.task = json.loads(config["task"])
        self.rung = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        k = self.rung
        self.rung += 1
        return {
            "trial_number": self.task["number"],
            "rung": k,
            "rung_time": self.task["reduction"] ** k,
            "epoch": self.task["rungs"][k],
            self.task["metric"]: score(self.task["params"], k),
            "done": self.rung == len(self.task["rungs"]),
        }


class Plain(tune.Trainable):  # type: ignore[misc]
    """The same for plain Ray Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        self.params = config
        self.rung = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        k = self.rung
        self.rung += 1
        return {"accuracy": score(self.params, k), "done": self.rung == RESULTS}


def score(params: dict[str, Any], k: int) -> float:
    """Something that a sampler can learn."""
    dropout, scale = params["model.dropout"], params["model.feature_scale"]
    return float(1 - (dropout - 0.3) ** 2 - abs(scale - 12) / 64 - 0.1 / (k + 1))


def ours(trials: int, slots: int, directory: Path, stamps: Stamps) -> None:
    from gsfl_tune.cluster import Slots
    from gsfl_tune.run import RunDirectory
    from gsfl_tune.search import Watcher, run_study

    class Count(Watcher):
        def rung(self, number: int, k: int, value: float) -> None:
            stamps.add()

    tried = experiment(f"search.trials={trials}")
    resources = Slots(cpu=1, gpu=0, count=slots)
    run = RunDirectory(directory / "ours")
    run_study(tried, run, resources=resources, watchers=[Count()], trainable=Ours)


def plain(trials: int, slots: int, directory: Path, stamps: Stamps) -> None:
    import optuna
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, *arguments: Any, **options: Any) -> None:
            stamps.add()

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, seed=1
        )
    tune.Tuner(
        tune.with_resources(Plain, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            num_samples=trials,
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(define, metric="accuracy", mode="max", sampler=sampler),
            scheduler=ASHAScheduler(max_t=RESULTS, grace_period=1, reduction_factor=3),
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(directory),
            verbose=0,
            callbacks=[Count()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


SPACE = experiment().space


def define(trial: Any) -> None:
    """The space, for OptunaSearch, which pickles it by name."""
    SPACE.suggest(trial)


def halves(stamps: Sequence[float]) -> tuple[float, float, float]:
    """Results a second: in all, first half, second half; the start of Ray's actors left out."""
    first, middle, last = stamps[0], stamps[len(stamps) // 2], stamps[-1]
    half = len(stamps) // 2
    return (
        (len(stamps) - 1) / (last - first),
        half / (middle - first),
        (len(stamps) - 1 - half) / (last - middle),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=["ours", "plain"], help="one side only")
    parser.add_argument("--quick", action="store_true", help="60 trials, nothing saved")
    options = parser.parse_args()
    trials = 60 if options.quick else options.trials
    from gsfl_tune.cluster import ray_session

    sides: dict[str, Callable[[int, int, Path, Stamps], None]] = {
        "gsfl-tune": ours,
        "Ray Tune + OptunaSearch + ASHA": plain,
    }
    rows = []
    for name, side in sides.items():
        if options.only and side.__name__ != options.only:
            continue
        with tempfile.TemporaryDirectory() as folder, ray_session(cpus=options.slots):
            stamps = Stamps(Path(folder, "stamps"))
            side(trials, options.slots, Path(folder), stamps)
            seen = stamps.read()
        whole, first, second = halves(seen)
        rows.append(
            [
                name,
                trials,
                len(seen),
                f"{whole:.1f}",
                f"{first:.1f}",
                f"{second:.1f}",
                f"{second / first:.2f}",
                f"{1000 / whole:.1f}",
            ]
        )
    header = ["driver", "trials", "results", "results/s", "first half", "second half"]
    text = table([*header, "second / first", "ms a result"], rows)
    publish("driver", "Results a second of the driver", text, save=not options.quick)


if __name__ == "__main__":
    main()
