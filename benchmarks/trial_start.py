"""From "trial scheduled" to its first optimiser step, in a real search on typefaces.

A search of head trials on cached features, as `search_spaces/typefaces.yaml` has them; the time
of every step on the way is noted by the driver and by the worker process. The first trial of
each worker process is left out: it imports torch and loads the backbone, and is reported apart.

Two to three minutes on two cores, of which the first search fills the caches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks._report import publish, table
from benchmarks._space import TEXT
from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt, RunContext, Watcher, run_study
from gsfl_tune.search.ray_tune.trainable import GsflTrainable

MODEL = "\nmodel:\n  backbone: tf_efficientnet_lite0\n  weights: package"
UNTRAINED = "\nmodel:\n  backbone: resnet10t\n  weights: none"

STAGES = {
    "Ray: to the worker process": ("scheduled", "reset"),
    "last trial closed, this one read": ("reset", "taken"),
    "Ray: to the first step": ("taken", "step"),
    "data, features, groups, head": ("step", "built"),
    "first batch, forward, backward": ("built", "optimiser"),
}


class Timed(GsflTrainable):
    """Notes when things happen, in the trial's own directory."""

    def setup(self, config: dict[str, Any]) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        super().setup(config)
        self.notes = {"cold": True}
        register_optimizer_step_pre_hook(self._optimiser)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        notes = {"reset": time.time(), "cold": False}
        done = super().reset_config(new_config)
        self.notes = {**notes, "taken": time.time()}
        return done

    def step(self) -> dict[str, Any]:
        if "step" not in self.notes:
            self.notes["step"] = time.time()
            start = self.worker._start

            def built() -> Any:
                training = start()
                self.notes["built"] = time.time()
                return training

            self.worker._start = built  # type: ignore[method-assign]
        return super().step()

    def _optimiser(self, *arguments: Any) -> None:
        if "optimiser" not in self.notes:
            self.notes["optimiser"] = time.time()
            path = Path(self.worker.task.directory, "start.json")
            path.write_text(json.dumps(self.notes))


class Scheduled(Watcher):
    """Notes when the driver hands a trial out."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        self.times[number] = time.time()


def measure(trials: int, slots: int, weights: bool, folder: Path) -> list[dict[str, float]]:
    """Times of every trial, by stage."""
    text = TEXT.replace("\nmodel:", MODEL if weights else UNTRAINED)
    overrides = ["training.head.epochs=3", "data.image_size=96", f"search.trials={trials}"]
    tried = Experiment.parse(text, overrides=overrides)
    run = RunDirectory(folder / "run")
    scheduled = Scheduled()
    with ray_session(cpus=slots):
        run_study(
            tried,
            RunContext(
                run=run,
                resources=Slots(cpu=1, gpu=0, count=slots),
                interrupt=Interrupt(run),
                cache_dir=folder / "cache",
                watchers=[scheduled],
            ),
            trainable=Timed,
        )
    notes = []
    for number, at in scheduled.times.items():
        path = run.trial("search", number) / "start.json"
        if path.exists():
            notes.append({"scheduled": at, **json.loads(path.read_text())})
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--untrained", action="store_true", help="a small backbone, no weights")
    parser.add_argument("--quick", action="store_true", help="6 trials, nothing saved")
    options = parser.parse_args()
    trials = 6 if options.quick else options.trials
    with tempfile.TemporaryDirectory() as name:
        weights = not (options.untrained or options.quick)
        notes = measure(trials, options.slots, weights, Path(name))
    warm = [each for each in notes if not each["cold"]]
    cold = [each["optimiser"] - each["scheduled"] for each in notes if each["cold"]]
    rows = []
    for title, (start, end) in {"in all": ("scheduled", "optimiser"), **STAGES}.items():
        values = [1000 * (each[end] - each[start]) for each in warm]
        p95 = float(np.percentile(values, 95))
        rows.append([title, f"{statistics.median(values):.1f}", f"{p95:.1f}"])
    text = table(["ms", "median", "95th percentile"], rows)
    text += (
        f"\n\n{len(warm)} trials on warm worker processes, {options.slots} at once; the first "
        f"trial of a process: {max(cold):.1f} s."
    )
    publish("trial_start", "Start of a trial", text, save=not options.quick)


if __name__ == "__main__":
    main()
