"""The pretraining of a trial in a worker process, from rung to rung."""

from __future__ import annotations

import json
import time
from typing import Any

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.search.workers.pretraining_team import pretraining_team
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.search.workers.task import Task
from gsfl_tune.training.pretrain import SharedPretraining
from gsfl_tune.training.workspace import Workspace, resolve_device


class PretrainingRungs:
    """Trains the pretraining of a trial up to its rungs, or takes their values from the cache.

    Args:
        task: The trial; its configuration has a pretraining.
        workspace: Data and caches of this node, without folds.

    Attributes:
        seconds: Time that it has taken.
    """

    def __init__(self, task: Task, workspace: Workspace) -> None:
        self._task = task
        self._own = shared_pretraining(task.config, workspace, task, task.pretraining)
        self.seconds = 0.0

    def result(self, k: int) -> dict[str, Any] | None:
        """Trains to a rung.

        A rung is compared by what is better the larger it is, or the smaller it is, as the
        objective: the accuracy of the nearest neighbours, or its difference from 1.

        Args:
            k: Rung, below 0.

        Returns:
            ``rung``, ``rung_time``, ``epoch`` (0), the compared value under the name of the
            objective, ``done``, ``checkpoint_seconds`` and ``pretraining`` (JSON: its epoch and
            its accuracy). None where the trial has no such rung: its pretraining is shorter, or was
            done before and not judged there.

        Raises:
            UserError: If it cannot be trained, or has no usable result; with the reason.
            PretrainingStopped: When the search was interrupted.
        """
        task = self._task
        epoch = task.pretraining[k]
        if epoch > task.config.pretrain.epochs:
            return None
        begun = time.monotonic()
        try:
            accuracy = self._own.accuracy(epoch)
        finally:
            self.seconds += time.monotonic() - begun
        if accuracy is None:
            return None
        larger = metric_of(task.metric).direction == "maximize"  # as `Goals.of_accuracy`
        return {
            "rung": k,
            "rung_time": float(task.reduction) ** k,
            "epoch": 0,
            task.metric: accuracy if larger else round(1 - accuracy, 6),
            "done": False,
            "checkpoint_seconds": 0.0,
            "pretraining": json.dumps([epoch, accuracy]),
        }


def learn(config: Config, workspace: Workspace, settings: WorkerSettings) -> None:
    """Trains the pretraining of a configuration, if it has one, to its end.

    Raises:
        UserError: If it cannot be trained, or has no usable result; with the reason.
        PretrainingStopped: When the search was interrupted.
    """
    if config.training.pretrain and not workspace.has_backbone(config):
        shared_pretraining(config, workspace, settings, []).finish()


def shared_pretraining(
    config: Config, workspace: Workspace, settings: WorkerSettings, rungs: list[int]
) -> SharedPretraining:
    """Makes the pretraining of a configuration, with the processes of a worker.

    Where processes divide the weights of a trial, each has a place of its own, maybe on another
    node: this process then learns alone, with the one GPU that it sees.

    Args:
        config: The configuration.
        workspace: Data and caches of this node, without folds.
        settings: Of the worker.
        rungs: Epochs at which it is judged.
    """
    workers = 1 if settings.shard else settings.workers
    return SharedPretraining(
        config,
        workspace.dataset,
        workspace.cache_dir,
        resolve_device(config.training.device),
        rungs=rungs,
        team=pretraining_team(config, workspace, workers, settings.threads),
        asked_to_stop=settings.interrupt.exists,
    )
