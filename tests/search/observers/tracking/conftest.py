"""One small search that was followed by everybody: two drivers, the second resumes the first.

Real trials, one after the other in this process: what Ray would add is of no matter to those who
watch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wandb

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.results import Outcome, Results, Score, write_results
from gsfl_tune.search import Study, Watcher, Watchers, open_study
from gsfl_tune.search.observers.tracking import TensorBoard, Tracking, open_trackers
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.tensorboard_events import hparams
from gsfl_tune.search.workers.trial_worker import TrialWorker
from tests.search.experiments import experiment

TRIALS = 5
RUNGS = [1, 2, 4]
PRUNED, INTERRUPTED = 1, 2


@dataclass
class Followed:
    run: RunDirectory
    mlflow: str
    wandb: Path
    notices: list[str] = field(default_factory=list)


def _train(
    study: Study, asked: Asked, tried: Experiment, run: RunDirectory, cache: Path, watcher: Watcher
) -> Iterator[int]:
    """Trains a trial from rung to rung, as a worker and the searcher do together."""
    number = asked.number
    task = Task(
        number=number,
        config=tried.configure(asked.params),
        directory=run.trial("search", number),
        interrupt=run.interrupt_file,
        metric=study.metric,
        rungs=RUNGS,
        reported=len(asked.rungs),
        params=asked.params,
        shown=hparams(study.space, asked.params),
        cache_dir=cache,
    )
    worker = TrialWorker(task)
    watcher.started(number, asked.params, again=bool(asked.rungs))
    try:
        while True:
            result = worker.step()
            k, value = result["rung"], result[study.metric]
            if result["done"]:
                study.complete(number, value, k)
                watcher.ended(number)
                return
            study.report(number, k, value)
            watcher.rung(number, k, value)
            yield k
            if number == PRUNED:
                study.prune(number, value, k)
                watcher.ended(number)
                return
    finally:
        worker.close(ended=study.trial(number).state.is_finished())


def _drive(
    tried: Experiment, run: RunDirectory, cache: Path, watchers: Sequence[Watcher], *, first: bool
) -> None:
    study = open_study(tried, run)
    watcher = Watchers(*watchers)
    watcher.begin(study, TRIALS, 1)
    todo = [study.again(number) for number in study.running()]
    while todo or study.created() < TRIALS:
        asked = todo.pop() if todo else study.ask()
        assert asked is not None
        rungs = _train(study, asked, tried, run, cache, watcher)
        for _ in rungs:
            watcher.tick()
            if first and asked.number == INTERRUPTED:
                rungs.close()  # type: ignore[attr-defined]
                watcher.finish(interrupted=True)
                study.close()
                return
    watcher.finish(interrupted=False)
    study.close()


@pytest.fixture(scope="session")
def followed(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Followed:
    folder = tmp_path_factory.mktemp("followed")
    found = Followed(
        RunDirectory(folder / "run"), f"sqlite:///{folder / 'mlflow.db'}", folder / "wandb"
    )
    tried = experiment("search.sampler.name=random")
    write_text(found.run.experiment_file, tried.to_yaml())
    write_json(found.run.manifest_file, {"format": 1, "seconds": {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        # It keeps the folder that it was first used with, for as long as the process lives.
        wandb.teardown()
        for first in (True, False):
            trackers = open_trackers(mlflow=found.mlflow, wandb="tests")
            tracking = Tracking(trackers, found.run, found.notices.append, patience=120)
            table = TensorBoard(found.run, tried)
            _drive(tried, found.run, cache_dir, [tracking, table], first=first)
            tracking.close()
    return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A complete trial and a failed one, with an answer."""
    run = RunDirectory(tmp_path_factory.mktemp("finished") / "run")
    tried = experiment()
    write_text(run.experiment_file, tried.to_yaml())
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    study = open_study(tried, run)
    for number in range(2):
        study.ask()
        log = run.trial("search", number) / "epochs.jsonl"
        log.parent.mkdir(parents=True)
        epochs = [{"epoch": e, "validation/nll": 3.0 - e, "seconds": 0.5} for e in (1, 2)]
        lines = [json.dumps(epoch) + "\n" for epoch in epochs]
        log.write_text("".join(lines))
    study.complete(0, 1.0, 2)
    study.fail(1, "non-finite train/loss in epoch 3")
    study.close()
    score = {"accuracy": Score.of([0.5, 0.6])}
    outcome = Outcome(config={"a": 1}, validation=score, test=score, seeds=[1, 2], trial=0)
    write_results(run.results_file, Results("tiny", "validation/nll", {"COMPLETE": 1}, outcome))
    return run
