"""One trial in a worker process: plain values in and out, without Ray and Optuna."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Any

import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import LATENCY
from gsfl_tune.heap import give_back
from gsfl_tune.run import Ownership, OwnershipLost
from gsfl_tune.run.checkpoints import discard
from gsfl_tune.run.epochs import own_seconds, records_of, seconds_of_trial
from gsfl_tune.run.layout import CHECKPOINT_FILE, replicate_directory
from gsfl_tune.run.storage import WorkerCopy, storage_of, stored_epochs
from gsfl_tune.search.workers.half_batches import TooLarge, with_half_batches
from gsfl_tune.search.workers.latency import measure_latency
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.search.workers.model_size import measure_size
from gsfl_tune.search.workers.owned_training import save, take, train_to
from gsfl_tune.search.workers.pretraining_rungs import PretrainingRungs, learn
from gsfl_tune.search.workers.rank_pool import team_for
from gsfl_tune.search.workers.replicates import means
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.tensorboard_events import EventWriter
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training.fingerprint import fingerprint
from gsfl_tune.training.fold_workspace import FoldWorkspace
from gsfl_tune.training.pretrain import PretrainingStopped
from gsfl_tune.training.training import NonFiniteLoss, Training


class TrialTimeout(Exception):
    """Raised when the trial took longer than allowed."""


def too_long(timeout: float) -> str:
    """Returns why a trial is ended that took longer than `timeout` seconds."""
    return f"longer than search.trial_timeout ({timeout:g} s)"


class TrialWorker:
    """Runs one trial from rung to rung.

    Args:
        task: The trial. Nothing happens before the first `step`.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._rung = task.reported
        # The training that runs, from 0, and the numbers at the end of those before it.
        self._number = 0
        self._ended = list(task.finished)
        self._training: Training | None = None
        self._ownership = Ownership(task.directory)
        self._events: EventWriter | None = None
        self._values: dict[int, float] = {}
        self._others: dict[int, dict[str, Any]] = {}
        # Measured once: they do not change while the trial trains.
        self._sizes: dict[str, float] = {}
        self._latency: dict[str, Any] = {}
        # Epochs and their seconds by stage, since the last report.
        self._measured: dict[str, tuple[int, float]] = {}
        self._worker_copy: WorkerCopy | None = None
        # That of the first training, whose TensorBoard data ends with the trial.
        self._first_copy: WorkerCopy | None = None
        self._last_save = time.monotonic()
        self._pieces = task.pieces
        self._begun = time.monotonic()
        # Seconds of the epochs that an earlier process trained.
        self._before: float | None = None

    def step(self) -> dict[str, Any]:
        """Trains to the next rung.

        Returns:
            ``trial_number`` and ``done``, with either ``rung`` (k), ``rung_time``
            (reduction**k), ``epoch`` (over all trainings), the objective (from the end of the
            first training on, the mean over those that ended; for rungs below 0 see
            `PretrainingRungs`) and ``checkpoint_seconds``, and
            (JSON: Ray flattens mappings) ``others``, once measured ``latency``, and at the end of
            a training its numbers, ``replicate``; or ``failed`` (a reason);
            or ``environment`` (a reason outside of the configuration: the trial can be continued);
            or ``interrupted``. Besides ``batch_halved`` where the trial ran out of memory and
            trains its batches in two parts, ``storage`` where that had problems, and ``measured``
            (JSON): epochs and their seconds by stage, without preparation for all trials.
        """
        if self.task.interrupt.exists() and self._training is None:
            return {"trial_number": self.task.number, "interrupted": True, "done": True}
        try:
            result, _ = with_half_batches(
                self._step, self._pieces, release=lambda: self.close(ended=False)
            )
            if result["done"]:
                self.close(ended="interrupted" not in result, failed="failed" in result)
        except OwnershipLost:
            # The result is not needed: another process has taken over the trial.
            self.close(ended=False)
            result = {"interrupted": True, "done": True}
        except PretrainingStopped:
            self.close(ended=False)
            result = {"interrupted": True, "done": True}
        except TooLarge as error:
            result = {"failed": str(error), "done": True}
        except (NonFiniteLoss, TrialTimeout, UserError, OSError) as error:
            result = self._broken(error)
        if self._pieces > 1:
            result["batch_halved"] = True
        if self._measured:
            # JSON: Ray flattens mappings.
            result["measured"] = json.dumps(self._measured)
            self._measured = {}
        news = self._worker_copy.news() if self._worker_copy is not None else None
        if news is not None:
            result["storage"] = news
        return {"trial_number": self.task.number, **result}

    def close(self, *, ended: bool = True, failed: bool = False) -> None:
        """Ends the trial: writes its last TensorBoard data and releases the model."""
        events, self._events = self._events, None
        training, self._training = self._training, None
        if training is not None:
            training.close()
        if events is not None:
            first = training is not None and ended and self._number == 0
            seen = training.validated if training is not None and first else None
            if training is not None and seen is not None:
                events.confusion(seen.logits.argmax(axis=1), seen.labels, training.groups)
            last = self._values.get(max(self._values, default=0))
            if self._ended:
                last = means(self._ended)[self.task.metric]
            events.close(last if ended else None, failed=failed)
        # The first one last: the directories of the others lie within its directory.
        for copy in (self._worker_copy, self._first_copy):
            if copy is not None:
                copy.close()
        self._first_copy = None
        # The next trial of this process may be a small one.
        training = None
        give_back(collect=False)

    def _broken(self, error: Exception) -> dict[str, Any]:
        problem = environment_problem(error)
        # A full disk may refuse the last events too.
        with suppress(OSError):
            self.close(ended=problem is None, failed=True)
        # A restart of the trial would only help if the machine failed.
        return {"failed" if problem is None else "environment": str(error), "done": True}

    def _step(self, pieces: int) -> dict[str, Any]:
        task, self._pieces = self.task, pieces
        if self._rung < 0 and (found := self._in_pretraining()) is not None:
            return found
        number, epoch = task.place(self._rung)
        if self._training is not None and number != self._number:
            self._leave(self._training)
        training = self._training or self._start(number)
        ending, self._last_save = train_to(
            training,
            epoch,
            self._ownership,
            interrupt=self._worker_copy.interrupt if self._worker_copy else task.interrupt,
            save_seconds=task.save_seconds,
            last_save=self._last_save,
            on_epoch=self._epoch,
        )
        if ending == "interrupted":
            self._publish()
            return {"interrupted": True, "done": True}
        value = self._values[epoch]
        if not math.isfinite(value):
            return {"failed": f"{task.metric} is {value} after epoch {epoch}", "done": True}
        k = self._rung
        self._rung += 1
        done = k >= task.last_rung
        # Before the rung is reported: whatever fails later, the trial continues from here.
        if training.saved < training.epoch:
            save(training, self._ownership)
            self._last_save = time.monotonic()
        self._publish()
        others, told = self._others[epoch], {}
        if task.replicates.count > 1 and k >= len(task.rungs) - 1:
            row = {task.metric: value, **others}
            self._ended.append(row)
            others = means(self._ended)
            value, told = others[task.metric], {"replicate": json.dumps(row)}
        result: dict[str, Any] = {
            "rung": k,
            "rung_time": task.reduction**k,
            "epoch": number * task.rungs[-1] + epoch,
            task.metric: value,
            "done": done,
            "checkpoint_seconds": round(training.save_seconds, 4),
        }
        training.save_seconds = 0.0
        return result | told | self._besides(training, others, done=done)

    def _in_pretraining(self) -> dict[str, Any] | None:
        """Trains to the next rung within the pretraining; None behind the last one."""
        task = self.task
        if not task.config.training.pretrain:
            self._rung = 0
            return None
        torch.set_num_threads(task.threads)
        workspace = open_workspace(task.config.data, task.side, task.cache_dir, task.storage)
        rungs = PretrainingRungs(task, workspace)
        try:
            while self._rung < 0:
                found = rungs.result(self._rung)
                self._rung += 1
                if found is not None:
                    return found
        finally:
            # A trial's time limit is that of its own epochs.
            self._begun += rungs.seconds
        return None

    def _besides(self, training: Training, others: dict[str, Any], *, done: bool) -> dict[str, str]:
        """Returns what is reported besides the objective."""
        wanted = self.task.others
        if not wanted:
            return {}
        if {"size_mb", "macs"} & set(wanted) and not self._sizes:
            self._sizes = measure_size(training)
        if LATENCY in wanted and not self._latency and (done or self.task.early_latency):
            self._latency = measure_latency(training)
        known = others | self._sizes | self._latency
        found = {"others": json.dumps({key: known[key] for key in wanted if key in known})}
        return found | ({"latency": json.dumps(self._latency)} if self._latency else {})

    def _note(self, record: dict[str, Any]) -> None:
        """Keeps the numbers of an epoch that are reported at a rung."""
        self._values[record["epoch"]] = float(record[self.task.metric])
        self._others[record["epoch"]] = {
            key: float(record[key]) for key in self.task.others if key in record
        }

    def _publish(self) -> None:
        """Waits until the storage has everything; the trial's time limit waits too."""
        if self._worker_copy is not None:
            begun = time.monotonic()
            self._worker_copy.finish()
            self._begun += time.monotonic() - begun

    def _leave(self, training: Training) -> None:
        """Ends a training of the trial, whose numbers the study has, in front of the next one."""
        seen = training.validated
        copy = self._worker_copy
        if self._number:
            # A trial keeps the checkpoint of its first training alone.
            discard(training.checkpoint_path)
            if copy is not None:
                copy.discard(CHECKPOINT_FILE)
                copy.close()
        else:
            self._first_copy = copy
        self._worker_copy = None
        if self._number == 0 and self._events is not None and seen is not None:
            self._events.confusion(seen.logits.argmax(axis=1), seen.labels, training.groups)
        training.close()
        self._training = None
        self._values, self._others = {}, {}

    def _start(self, number: int) -> Training:
        task = self.task
        torch.set_num_threads(task.threads)
        workspace = open_workspace(task.config.data, task.side, task.cache_dir, task.storage)
        begun = time.monotonic()
        learn(task.config, workspace, task)
        self._begun += time.monotonic() - begun
        fold = task.replicates.fold(number)
        if fold is not None:
            workspace = FoldWorkspace(workspace, fold)
        self._number = number
        directory = replicate_directory(task.directory, number)
        if task.storage is not None:
            key = fingerprint(task.config)
            begun = time.monotonic()
            self._worker_copy = WorkerCopy(task.storage, directory, key, task.params)
            # The trial's time limit waits while the storage does not answer.
            self._begun += time.monotonic() - begun
            directory = self._worker_copy.directory
        team = team_for(task)
        training = Training(
            task.config,
            workspace,
            directory,
            seed=task.replicates.seed(number, task.config.training.seed),
            pieces=self._pieces,
            team=team,
        )
        training.keep = task.config.search.last_checkpoints
        self._ownership = take(training)
        if self._worker_copy is not None:
            training.on_save = self._worker_copy.saved
        self._training = training
        self._last_save = time.monotonic()
        # Rungs that a checkpoint is already past are answered from the trial's own log.
        records = training.log.read()
        if self._before is None and task.timeout is not None:
            self._before = self._seconds_before(records)
        for record in records:
            self._note(record)
        if number == 0:
            self._events = EventWriter(directory, task.shown, task.metric, training.epoch)
        return training

    def _seconds_before(self, records: list[dict[str, Any]]) -> float:
        """Returns the seconds of the epochs that earlier processes trained.

        Args:
            records: Epochs of the training that runs.
        """
        task, address = self.task, self.task.storage
        own = sum(float(record["seconds"]) for record in records)
        others = (n for n in range(task.replicates.count) if n != self._number)
        if address is None:
            return seconds_of_trial(task.directory) if task.replicates.count > 1 else own
        key = fingerprint(task.config)
        for number in others:
            # Their logs may lie on another node.
            name = address.name(replicate_directory(task.directory, number))
            log = stored_epochs(storage_of(address), name, key) or b""
            own += sum(float(record["seconds"]) for record in records_of(log.decode()))
        return own

    def _epoch(self, record: dict[str, Any]) -> None:
        self._note(record)
        epochs, seconds = self._measured.get(record["stage"], (0, 0.0))
        seconds += own_seconds(record)
        self._measured[record["stage"]] = (epochs + 1, seconds)
        if self._events is not None and self._number == 0:
            self._events.epoch(record)
        timeout, epoch = self.task.timeout, record["epoch"]
        if timeout is None or epoch >= self.task.rungs[-1]:
            return
        taken = (self._before or 0.0) + time.monotonic() - self._begun
        if taken > timeout:
            raise TrialTimeout(f"{too_long(timeout)}: {taken:.0f} s after epoch {epoch}")
