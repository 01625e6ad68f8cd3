"""A small search in a process of its own, to be killed: ``python -m benchmarks.faults.driver``.

Its trials are real ones, on rendered letters and a small untrained backbone. They are slowed
down, so that a kill lands in the middle of one, and they write down every epoch that was trained
in a log that no resume shortens: the one place where work that was done twice is seen twice.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import ray

from gsfl_tune.cluster import ray_session, slots
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, run_lock, write_json
from gsfl_tune.search import (
    Interrupt,
    Progress,
    RunContext,
    SearchInterrupted,
    StorageWatcher,
    Watcher,
    run_study,
    stored_run,
)
from gsfl_tune.search.ray_tune.trainable import GsflTrainable
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker

Stage = Literal["head", "finetune"]

YAML = """
name: faults
data:
  source: typefaces
  image_size: 32
  typefaces: {train: 6, test: 2, size: 32}
model:
  backbone: resnet10t
  weights: none
  head: {choice: [gsfl, plain]}
  latent_dim: {int: [8, 32], step: 8}
  dropout: {float: [0.0, 0.6], step: 0.3}
  groups:
    count: {int: [2, 4], when: {model.head: gsfl}}
training:
  head:
    epochs: 27
    learning_rate: {float: [1.0e-4, 1.0e-1], log: true}
search:
  seed: 3
  metric: validation/nll
  sampler: {startup_trials: 4}
  scheduler: {grace: 1, reduction: 3}
  resources: {cpu: 1, gpu: 0}
  # With the defaults and the published setting, three trials that are never stopped early: the
  # third one is there to be hit.
  enqueue: [{model.head: plain, training.head.learning_rate: 0.01}]
"""
OVERRIDES: dict[Stage, tuple[str, ...]] = {
    "head": ("search.trials=9",),
    "finetune": (
        "search.trials=7",
        "training.head.epochs=1",
        "training.finetune.epochs=18",
        "training.finetune.batch_size=64",
        "training.finetune.learning_rate={float: [1.0e-4, 1.0e-2], log: true}",
    ),
}
# Seconds added to an epoch, which takes some hundredths.
PACE = 0.12


def experiment(stage: Stage, *overrides: str) -> Experiment:
    """What is searched."""
    return Experiment.parse(YAML, overrides=[*OVERRIDES[stage], *overrides])


class LoggedWorker(TrialWorker):
    """Writes down every epoch when it was trained, and takes its time."""

    def _epoch(self, record: dict[str, Any]) -> None:
        super()._epoch(record)
        line = {
            "time": time.time(),
            "trial": self.task.number,
            "epoch": record["epoch"],
            "stage": record["stage"],
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
        }
        with trained_log(Path(self.task.directory).parents[1]).open("a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(PACE)


class Logged(GsflTrainable):
    """The trainable of the search, with the log."""

    def _take(self, config: dict[str, Any]) -> None:
        self.worker = LoggedWorker(Task.model_validate_json(config["task"]))


def trained_log(run: Path) -> Path:
    """Where the epochs of a run are written down."""
    return run.with_name(f"{run.name}.trained.jsonl")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("stage", choices=["head", "finetune"])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    run = RunDirectory(options.run)
    searched = experiment(options.stage, *options.overrides)
    progress = Progress()
    watchers: list[Watcher] = [progress]
    stored = stored_run(searched, run, progress.notice, resume=True)
    try:
        with run_lock(run), stored as storage, ray_session():
            interrupt = Interrupt(run)
            if storage is not None:
                write_json(run.manifest_file, {"format": 1})
                watchers.append(StorageWatcher(storage, interrupt, progress.notice))
                storage.start()
            config = searched.defaults().search
            outcome = run_study(
                searched,
                RunContext(
                    run=run,
                    resources=slots(config.resources, config.max_concurrent),
                    cache_dir=options.cache,
                    watchers=watchers,
                    interrupt=interrupt,
                    storage=storage,
                ),
                feature_dim=512,
                trainable=Logged,
            )
            interrupt.clear()
    except SearchInterrupted as error:
        print(error, file=sys.stderr)
        return 3
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 3 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
