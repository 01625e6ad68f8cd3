"""The retrains that end a run, in a worker process."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import VALIDATION, of_part
from gsfl_tune.heap import give_back
from gsfl_tune.run import OwnershipLost, read_json, write_json
from gsfl_tune.run.epochs import PRECISION, measured_of
from gsfl_tune.run.layout import CHECKPOINT_FILE, RESULT_FILE, TEST_FILE, VALIDATION_FILE
from gsfl_tune.run.storage import DriverCopy, WorkerCopy
from gsfl_tune.search.workers.half_batches import TooLarge, with_half_batches
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.search.workers.owned_training import save, take, train_to
from gsfl_tune.search.workers.pretraining_rungs import learn
from gsfl_tune.search.workers.rank_pool import team_for
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training.fingerprint import FitOn, fingerprint
from gsfl_tune.training.predictions import save_predictions
from gsfl_tune.training.pretrain import PretrainingStopped
from gsfl_tune.training.training import NonFiniteLoss, Training


class Job(BaseModel):
    """Describes one complete training.

    Attributes:
        name: Name that a user sees.
        config: The configuration.
        seed: Seed of weights, order, dropout and augmentation.
        directory: Directory for its files; ``result.json`` there means that it is done.
        fit: Which images it is trained on.
        test: Whether the test split is predicted at the end (``test.npz``).
        pieces: Number of parts of a batch, after memory ran out before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    config: Config
    seed: int
    directory: Path
    fit: FitOn = "train"
    test: bool = False
    pieces: int = 1


def load_result(job: Job) -> dict[str, Any] | None:
    """Reads the result that an earlier driver left."""
    path = job.directory / RESULT_FILE
    return read_json(path) if path.exists() else None


def is_finished(job: Job, *, stored: bool = False) -> bool:
    """Returns whether an earlier driver left nothing of a job to be trained.

    Args:
        job: The job; one that is tested needs its model too, of which the bundle is made.
        stored: Whether the model may be in a storage alone.
    """
    known = load_result(job)
    if known is None:
        return False
    complete = "failed" in known or not job.test or stored
    return complete or (job.directory / CHECKPOINT_FILE).exists()


def forget_without_model(job: Job, storage: DriverCopy | None = None) -> None:
    """Removes the result of a tested retrain whose model is gone, as after `gsfl-tune clean`.

    The retrain is then trained again, to the same model: the bundle is made of it.

    Args:
        job: The job.
        storage: Storage of the run, which may have the model.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """
    if load_result(job) is None or is_finished(job):
        return
    if storage is None or not storage.copies(job.directory, CHECKPOINT_FILE):
        (job.directory / RESULT_FILE).unlink(missing_ok=True)


def run_job(job: Job, settings: WorkerSettings) -> dict[str, Any] | None:
    """Trains a job to its end, from its checkpoint if it has one.

    Returns:
        Content of ``result.json``: ``validation`` (metrics after the last epoch, with
        ``fit="train"``; the predictions are in ``validation.npz``), ``test`` (metrics, if asked
        for), ``epochs``, ``seconds``, ``measured`` (epochs and seconds by stage) and, where the
        backbone was trained, ``precision``; or
        ``failed``, a reason. None when it was interrupted. Not in the file: ``batch_halved``,
        where it ran out of memory and trained its batches in two parts.

    Raises:
        EnvironmentProblem: When the machine failed it (disk, network); it can be run again.
    """
    known = load_result(job)
    if known is not None:
        return known
    if settings.interrupt.exists():
        return None
    worker_copy: WorkerCopy | None = None
    try:
        if settings.storage is not None:
            key = fingerprint(job.config, job.seed, job.fit)
            worker_copy = WorkerCopy(settings.storage, job.directory, key)
            job = job.model_copy(update={"directory": worker_copy.directory})
        result, pieces = with_half_batches(
            lambda pieces: _attempt(job, settings, pieces, worker_copy), job.pieces
        )
        if result is not None:
            write_json(job.directory / RESULT_FILE, result)
        if worker_copy is not None:
            worker_copy.finish(TEST_FILE, VALIDATION_FILE, RESULT_FILE)
        if result is not None and not job.test:
            # The comparison is done; only models that are tested are used later.
            (job.directory / CHECKPOINT_FILE).unlink(missing_ok=True)
            if worker_copy is not None:
                worker_copy.discard(CHECKPOINT_FILE)
    except OwnershipLost:
        return None
    except TooLarge as error:
        # Not stored as a result: another machine may have more memory.
        return {"failed": str(error)}
    except (UserError, OSError) as error:
        problem = environment_problem(error)
        if problem is not None:
            raise problem from error
        return {"failed": str(error)}
    finally:
        if worker_copy is not None:
            worker_copy.close()
        give_back(collect=False)
    return result if result is None or pieces == 1 else {**result, "batch_halved": True}


def _attempt(
    job: Job, settings: WorkerSettings, pieces: int, worker_copy: WorkerCopy | None
) -> dict[str, Any] | None:
    try:
        return _train(job, settings, pieces, worker_copy)
    except NonFiniteLoss as error:
        return {"failed": str(error)}
    except PretrainingStopped:
        return None
    except OwnershipLost:
        # The result is not needed: another process has taken over the training.
        return None


def _train(
    job: Job, settings: WorkerSettings, pieces: int, worker_copy: WorkerCopy | None
) -> dict[str, Any] | None:
    torch.set_num_threads(settings.threads)
    workspace = open_workspace(job.config.data, settings.side, settings.cache_dir, settings.storage)
    learn(job.config, workspace, settings)
    team = team_for(settings)
    training = Training(
        job.config,
        workspace,
        job.directory,
        seed=job.seed,
        fit=job.fit,
        pieces=pieces,
        team=team,
    )
    with closing(training):
        return _to_the_end(training, job, settings, worker_copy)


def _to_the_end(
    training: Training, job: Job, settings: WorkerSettings, worker_copy: WorkerCopy | None
) -> dict[str, Any] | None:
    ownership = take(training)
    if worker_copy is not None:
        training.on_save = worker_copy.saved
    ending, _ = train_to(
        training,
        training.total_epochs,
        ownership,
        interrupt=worker_copy.interrupt if worker_copy else settings.interrupt,
        save_seconds=settings.save_seconds,
        last_save=time.monotonic(),
    )
    if ending == "interrupted":
        return None
    save(training, ownership)
    records = training.log.read()
    result: dict[str, Any] = {
        "epochs": training.epoch,
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "measured": measured_of(records),
    }
    if PRECISION in records[-1]:
        result[PRECISION] = records[-1][PRECISION]
    if job.fit == "train":
        seen = training.predict_as_exported("validation")
        # The record may be of another arithmetic.
        told = of_part(VALIDATION, records[-1])
        result["validation"] = told | training.scoring.of("validation", seen)
        save_predictions(job.directory / VALIDATION_FILE, seen)
    if job.test:
        predictions = training.predict_as_exported("test")
        save_predictions(job.directory / TEST_FILE, predictions)
        result["test"] = training.scoring.of("test", predictions)
    return result
