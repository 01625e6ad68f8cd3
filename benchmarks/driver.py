"""Results a second of the driver with trials that do nothing: ours against plain Ray Tune.

All sides run the same number of trials of three results at most on the same Ray, the same trials at
once, one class trainable each with reused actors, and nothing to compute: what is left is the cost
of the driver itself. Ours and the plain side have TPE (of each parameter alone, constant liar) over
the same space and ASHA on. Ours runs twice: as a search goes, where ASHA stops most trials at their
first result and every other result is a new trial; and with values that are all alike, where ASHA
is asked as often and stops nobody, three results a trial. Plain Ray Tune is what a user writes:
`Tuner` with `OptunaSearch` and `ASHAScheduler`, an in-memory study, no checkpoints, and Ray's
defaults for everything else. Ours writes every result to a journal that outlives the driver, which
the other side does not. Ray alone, with configurations that cost nothing, no scheduler and nothing
written, is the floor; it runs as it is and as we use it (`gsfl_tune.search.ray_tune.spared_work`).

The rate of the second half against the first says whether the driver slows down as trials pile
up. A side that is not done after `--limit` seconds is cut off, and its row says so. 1,000 trials
take some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray import tune
from ray.tune.search import Searcher

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

    alike = False

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
            self.task["metric"]: 0.5 if self.alike else score(self.task["params"], k),
            "done": self.rung == len(self.task["rungs"]),
        }


class Alike(Ours):
    """One that is as good as all others."""

    alike = True


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


@dataclass(frozen=True)
class Job:
    """What every side is asked for.

    Attributes:
        trials: Trials.
        slots: Trials at once.
        limit: Seconds.
        directory: Where files go.
        stamps: Is told of every result.
    """

    trials: int
    slots: int
    limit: float
    directory: Path
    stamps: Stamps


def ours(job: Job, *, alike: bool) -> int:
    from gsfl_tune.cluster import Slots
    from gsfl_tune.run import RunDirectory
    from gsfl_tune.search import Interrupt, RunContext, Watcher, run_study

    run = RunDirectory(job.directory / "ours")
    interrupt = Interrupt(run)
    deadline = time.monotonic() + job.limit

    class Count(Watcher):
        def rung(self, number: int, k: int, value: float) -> None:
            job.stamps.add()

        def tick(self) -> None:
            if time.monotonic() > deadline and not interrupt.requested:
                interrupt.request()
                interrupt.request()

    outcome = run_study(
        experiment(f"search.trials={job.trials}"),
        RunContext(
            run=run,
            resources=Slots(cpu=1, gpu=0, count=job.slots),
            watchers=[Count()],
            interrupt=interrupt,
        ),
        trainable=Alike if alike else Ours,
    )
    counts = outcome.study.counts()
    return counts["COMPLETE"] + counts["PRUNED"]


class Count(tune.Callback):  # type: ignore[misc]
    """Counts the results of Ray's own sides."""

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps

    def on_trial_result(self, *arguments: Any, **options: Any) -> None:
        self.stamps.add()


def _fit(job: Job, **options: Any) -> int:
    results = tune.Tuner(
        tune.with_resources(Plain, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            max_concurrent_trials=job.slots,
            reuse_actors=True,
            time_budget_s=job.limit,
            **options,
        ),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(job.directory),
            verbose=0,
            callbacks=[Count(job.stamps)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    return len(results)


def plain(job: Job) -> int:
    import optuna
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(multivariate=False, constant_liar=True, seed=1)
    return _fit(
        job,
        num_samples=job.trials,
        metric="accuracy",
        mode="max",
        search_alg=OptunaSearch(define, metric="accuracy", mode="max", sampler=sampler),
        scheduler=ASHAScheduler(max_t=RESULTS, grace_period=1, reduction_factor=3),
    )


class Fixed(Searcher):  # type: ignore[misc]
    """The same configuration, again and again."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.left = trials

    def set_search_properties(self, *arguments: Any, **options: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not self.left:
            return str(Searcher.FINISHED)
        self.left -= 1
        return {"model.dropout": 0.3, "model.feature_scale": 12.0}

    def on_trial_complete(self, *arguments: Any, **options: Any) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        pass


def alone(job: Job, *, lean: bool) -> int:
    from gsfl_tune.search.ray_tune.patches import light_snapshots, quiet
    from gsfl_tune.search.ray_tune.spared_work import lean_ray

    with quiet(), light_snapshots(), lean_ray() if lean else nullcontext():
        return _fit(job, num_samples=-1, search_alg=Fixed(job.trials))


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


SIDES: dict[str, tuple[str, Callable[[Job], int]]] = {
    "ours": ("gsfl-tune", partial(ours, alike=False)),
    "alike": ("gsfl-tune, all values alike", partial(ours, alike=True)),
    "plain": ("Ray Tune + OptunaSearch + ASHA", plain),
    "floor": ("Ray Tune alone", partial(alone, lean=False)),
    "lean": ("Ray Tune alone, as we use it", partial(alone, lean=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=list(SIDES), nargs="+", default=list(SIDES))
    parser.add_argument("--limit", type=float, default=240, help="seconds a side")
    parser.add_argument("--profile", action="store_true", help="where a side's time goes")
    parser.add_argument("--quick", action="store_true", help="60 trials, nothing saved")
    options = parser.parse_args()
    trials = 60 if options.quick else options.trials
    from gsfl_tune.cluster import ray_session

    rows = []
    for name in options.only:
        title, side = SIDES[name]
        with tempfile.TemporaryDirectory() as folder, ray_session(cpus=options.slots):
            stamps = Stamps(Path(folder, "stamps"))
            job = Job(trials, options.slots, options.limit, Path(folder), stamps)
            profile = cProfile.Profile()
            ended = profile.runcall(side, job) if options.profile else side(job)
            seen = stamps.read()
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        whole, first, second = halves(seen)
        rows.append(
            [
                title,
                ended if ended >= trials else f"{ended} of {trials} in {options.limit:g} s",
                len(seen),
                f"{whole:.1f}",
                f"{first:.1f}",
                f"{second:.1f}",
                f"{second / first:.2f}",
                f"{1000 / whole:.1f}",
                f"{(seen[-1] - seen[0]) / ended * 1000:.1f}",
            ]
        )
    header = ["driver", "trials", "results", "results/s", "first half", "second half"]
    text = table([*header, "second / first", "ms a result", "ms a trial"], rows)
    save = not options.quick and not options.profile
    publish("driver", "Results a second of the driver", text, save=save)


if __name__ == "__main__":
    main()
