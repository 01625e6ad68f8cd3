"""Trains one configuration; resumable at every epoch and usable without a search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.cache.building import cache_seconds
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import METHOD, VALIDATION, keyed
from gsfl_tune.heap import keep_freed
from gsfl_tune.losses import ClassCenter, ClassCenters, Loss, Start
from gsfl_tune.models import Backbone, Network, PlainHead
from gsfl_tune.run import EpochLog
from gsfl_tune.run.checkpoints import stored
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE
from gsfl_tune.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gsfl_tune.training.create_context import create_context, random_devices
from gsfl_tune.training.division import DividedTraining
from gsfl_tune.training.fingerprint import FitOn, fingerprint
from gsfl_tune.training.predictions import Predictions
from gsfl_tune.training.process_group import Ranks, Team
from gsfl_tune.training.scoring import Scoring, numbers_of_method
from gsfl_tune.training.seeds import mix
from gsfl_tune.training.stages import STAGE_KINDS, Stage
from gsfl_tune.training.timeline import StageName, Timeline, stage_spec
from gsfl_tune.training.workspace import Workspace


class NonFiniteLoss(Exception):
    """Raised when the loss of an epoch was NaN or infinite; the message names the terms."""


class Training(DividedTraining):
    """Trains one configuration through its stages, an epoch at a time.

    The random numbers of an epoch (order, dropout, augmentation) are a function of (seed, epoch),
    the learning rate is one of the step. So a training resumed from a checkpoint equals one that
    was not interrupted: bit for bit on a CPU with the same number of threads.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        directory: Folder of ``epochs.jsonl`` and ``checkpoint.pt``.
        seed: Overrides ``training.seed``.
        fit: Which images are trained on; with ``train+validation`` nothing is validated.
        pieces: Number of parts in which a batch is trained, one after the other, to save memory.
            The optimiser sees the same batches, and checkpoints do not depend on it.
        team: Processes that train the finetune stage with this one. This process trains the small
            head stage alone.

    Attributes:
        on_save: Called after every checkpoint.
        scoring: Computes the metrics of predictions.
        validated: Predictions of the last epoch that this process validated.

    Raises:
        UserError: If weights, device, groups or taxonomy are not available.
    """

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        directory: Path,
        *,
        seed: int | None = None,
        fit: FitOn = "train",
        pieces: int = 1,
        team: Team | None = None,
    ) -> None:
        keep_freed()
        self.config = config
        self.workspace = workspace
        self.directory = Path(directory)
        self.seed = config.training.seed if seed is None else seed
        self.fit: FitOn = fit
        self.timeline = Timeline.of(config)
        # Epoch of the checkpoint on disk.
        self.saved = 0
        # Seconds that checkpoints took; whoever reports them begins anew.
        self.save_seconds = 0.0
        # Number of checkpoints that `save` keeps, including the new one.
        self.keep = 1
        self.log = EpochLog(self.directory / EPOCHS_FILE)
        self.scoring = Scoring(config.search, lambda: workspace.dataset.classes)
        self.context = create_context(config, workspace, seed=self.seed, fit=fit, pieces=pieces)
        self._stage: Stage | None = None
        self._team = team
        self._kept = None
        self.validated: Predictions | None = None
        self._fingerprint = fingerprint(config, self.seed, fit)
        self.on_save: Callable[[], None] = lambda: None

    @property
    def epoch(self) -> int:
        """Returns the number of epochs trained so far."""
        return self.context.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.context.epoch = epoch

    @property
    def head(self) -> PlainHead:
        """Returns the head that is trained."""
        return self.context.head

    @property
    def loss(self) -> Loss:
        """Returns the loss with its state."""
        return self.context.loss

    @property
    def device(self) -> torch.device:
        """Returns the device of the training."""
        return self.context.device

    @property
    def groups(self) -> np.ndarray | None:
        """Returns the (C,) group of every class; None without a GSFL head."""
        return self.context.groups

    @property
    def pieces(self) -> int:
        """Returns the number of parts in which a batch is trained."""
        return self.context.pieces

    @property
    def centers(self) -> ClassCenters | None:
        """Returns the class centres of a GSFL head; None with a plain one."""
        term = self.context.loss.find(ClassCenter)
        return None if term is None else term.centers

    @property
    def total_epochs(self) -> int:
        """Returns the epochs over both stages."""
        return self.timeline.total

    @property
    def finished(self) -> bool:
        """Returns whether the last epoch is trained."""
        return self.epoch >= self.total_epochs

    def run_epoch(self) -> dict[str, Any]:
        """Trains the next epoch, validates, and appends the record to ``epochs.jsonl``.

        Returns:
            ``epoch`` (from 1), ``stage``, ``train/...`` mean losses that are finite,
            ``validation/...`` metrics and ``method/...`` numbers (with ``fit="train"``),
            ``seconds`` and, if part of them, ``cache_seconds``: the time to build, or wait for,
            caches that all trials share, and ``start_seconds``: that of what its stage does once.

        Raises:
            NonFiniteLoss: When the loss is NaN or infinite; the epoch is not recorded.
            RuntimeError: When the training is finished.
        """
        if self.finished:
            raise RuntimeError(f"all {self.total_epochs} epochs are trained")
        spec = self.timeline.stage(self.epoch)
        if self._apart_in not in (None, spec.name):
            # The next stage begins with what this one has trained, as a whole.
            self._current()
            self._kept = None
        if self._team is None or not spec.divided:
            record = self._epoch(spec.name)
        else:
            with self._team.watching():
                if self.ranks is None:
                    self.ranks = self._gather(self._team)
                self._team.next_epoch()
                record = self._epoch(spec.name)
        self.epoch += 1
        if self.context.share.rank == 0:
            self.log.append(record)
        return record

    def _epoch(self, name: StageName) -> dict[str, Any]:
        started, built = time.perf_counter(), cache_seconds()
        seed = mix(self.seed, self.epoch)
        with torch.random.fork_rng(devices=random_devices(self.device)):
            torch.manual_seed(seed)
            stage = self._enter(name, starting=self.ranks is None)
            if self.context.share.rank:  # its own dropout masks
                torch.manual_seed(mix(seed, self.context.share.rank))
            within = self.epoch - self.timeline.stage_start(name)
            losses = stage.run_epoch(within, seed)
        finite = {key: value for key, value in losses.items() if math.isfinite(value)}
        if "train/loss" not in finite:
            bad = ", ".join(key for key in losses if key not in finite)
            raise NonFiniteLoss(f"non-finite {bad} in epoch {self.epoch + 1} ({name} stage)")
        # A term without weight may overflow, as it is not trained on. JSON has no infinity.
        record: dict[str, Any] = {"epoch": self.epoch + 1, "stage": name, **finite}
        record |= self.context.told(name)
        if self.fit == "train":
            self.validated = self._predict("validation", self.ranks)
            metrics = self.scoring.of_epoch(self.validated)
            record |= keyed(VALIDATION, metrics)
            record |= keyed(METHOD, numbers_of_method(self.context.method, self.validated, stage))
            if not math.isfinite(metrics["nll"]):
                raise NonFiniteLoss(f"non-finite validation/nll after epoch {self.epoch + 1}")
        record["seconds"] = round(time.perf_counter() - started, 4)
        if cache_seconds() > built:
            record["cache_seconds"] = round(cache_seconds() - built, 4)
        return record

    def predict(self, part: Literal["validation", "test"]) -> Predictions:
        """Returns the logits with the validated weights (the average, if there is one).

        Args:
            part: ``test`` opens the test split, for the end of a run only.
        """
        return self._predict(part, None)

    def predict_as_exported(self, part: Literal["validation", "test"]) -> Predictions:
        """Predicts as the bundle does, in fp32, also where the training computes in less."""
        stage = self._current()
        if stage.exact:
            known = self.validated if part == "validation" else None
            return known or self.predict(part)
        with stage.made_exact():
            return self.predict(part)

    def _predict(self, part: Literal["validation", "test"], ranks: Ranks | None) -> Predictions:
        """Predicts as `predict` does; with `ranks`, each does its share and gets the result."""
        dataset = self.workspace.dataset
        images = dataset.pool if part == "validation" else dataset.test
        index = (
            dataset.validation_index
            if part == "validation"
            else np.arange(len(dataset.test), dtype=np.int64)
        )
        stage = self._current() if ranks is None or self._stage is None else self._stage
        sharded = stage.shards is not None
        if ranks is not None and len(index) < ranks.share.size and not sharded:
            ranks = None
        own = index if ranks is None else index[ranks.share.of(len(index))]
        count = len(own)
        if ranks is not None and sharded:
            # Passes of divided parameters need all ranks: the same number of images on each.
            most = -(-len(index) // ranks.share.size)
            own = np.append(own, np.resize(index, most - count))
        logits = stage.logits(images, "pool" if part == "validation" else "test", own)[:count]
        if ranks is not None:
            logits = ranks.gather(logits, len(index))
        paths = [images.paths[position] for position in index]
        return Predictions(logits.numpy(), np.asarray(images.labels)[index], paths)

    def network(self, backbone: Backbone) -> Network:
        """Joins a backbone with this trial's projection, pooling and head."""
        return self.context.network(backbone)

    def trained_network(self) -> Network:
        """Returns the whole network with the validated weights, in eval mode on the CPU."""
        return self._current().network().cpu().eval().requires_grad_(False)

    def trained_features(self, part: Literal["pool", "test"], index: np.ndarray) -> Tensor | None:
        """Returns what the head reads of a trained backbone; None if the backbone was not trained.

        Unit features (N, D), and what is added to scores behind them, see `PlainHead.divided`.
        They are those of the bundle. Frozen blocks do not run again if their activations are cached
        in that precision.
        """
        stage = self._current()
        with nullcontext() if stage.exact else stage.made_exact():
            return stage.unit_features(part, index)

    def save(self) -> None:
        """Writes ``checkpoint.pt``; does nothing before the first epoch."""
        if self._stage is None and self._kept is None:
            return
        save_checkpoint(self.checkpoint_path, self._state(), self.keep)
        self.saved = self.epoch
        self.on_save()

    def restore(self) -> bool:
        """Continues from ``checkpoint.pt`` and cuts ``epochs.jsonl`` back to its epoch.

        If that file is broken, an earlier one is used, if it was kept.

        Returns:
            Whether there was a checkpoint of this configuration; if not, the training starts at the
            first epoch.

        Raises:
            CheckpointError: When the file is broken and there is no other.
        """
        found, broken = False, None
        for path in stored(self.checkpoint_path):
            try:
                found = self._take(path)
            except CheckpointError as error:
                broken = broken or error
            if found:
                # Otherwise the broken file would be kept and this one replaced.
                path.replace(self.checkpoint_path)
                break
        if broken is not None and not found:
            raise broken
        self.log.truncate(self.epoch if found else 0)
        return found

    def look(self) -> bool:
        """Restores like `restore` for reading the last model only: no file is changed."""
        return self._take(self.checkpoint_path)

    def _take(self, path: Path) -> bool:
        state = load_checkpoint(path)
        if (
            state is None
            or not self._is_ours(state)
            # A power cut may keep one file and lose the end of the other.
            or len(self.log.read()) < state["epoch"]
        ):
            return False
        self.epoch = self.saved = state["epoch"]
        self.context.compute_in(state.get("precision"))
        if not self._keeps(state):
            self._current().load_state_dict(state)
        return True

    def _is_ours(self, state: dict[str, Any]) -> bool:
        """Returns whether a checkpoint belongs to this configuration and these images."""
        if "data" in state:
            known = state["fingerprint"], state["data"], state.get("teacher")
            ours = self._fingerprint, self.workspace.dataset.digest, self._teacher
            return bool(known == ours)
        earlier = fingerprint(self.config, self.seed, self.fit, placed=True)
        return bool(state["fingerprint"] == earlier)

    def _state(self) -> dict[str, Any]:
        """Returns all that `restore` needs; the same for any number of ranks."""
        if self._kept is not None:
            return self._kept
        state = {
            "fingerprint": self._fingerprint,
            "data": self.workspace.dataset.digest,
            "epoch": self.epoch,
            "precision": self.context.precision,
            **self._joined_state(self._stage or self._current()),
        }
        if self._teacher is not None:
            state["teacher"] = self._teacher
        return state

    @property
    def _teacher(self) -> str | None:
        """Names the bundle that is learnt from by its content: its path may hold another later."""
        teacher = self.context.teacher
        return None if teacher is None else teacher.digest

    @property
    def checkpoint_path(self) -> Path:
        """Returns the path that `save` writes."""
        return self.directory / CHECKPOINT_FILE

    def _current(self) -> Stage:
        """Returns the stage that trained last (the first one before any epoch), as a whole."""
        if self._is_sharded:
            self._collect()
        if self._stage is None:
            name = self.timeline.stage(max(0, self.epoch - 1)).name
            self._stage = self._enter(name, starting=False)
            if self._kept is not None:
                self._stage.load_state_dict(self._kept, to_train=False)
        return self._stage

    def _enter(self, name: StageName, *, starting: bool = True) -> Stage:
        if self._stage is None or self._stage.name != name:
            spec = stage_spec(name)
            before = None if self._stage is None else self._stage.handed_on()
            self._stage = None
            kind = STAGE_KINDS[spec.kind]
            if kind.needs_device:
                # Features of a frozen backbone are not needed before the next trial.
                self.workspace.free_device()
            self.context = replace(self.context, config=self.config).of_stage(spec)
            self._stage = kind(self.context, name, before)
            if self.ranks is not None:
                self._stage.divide(self.ranks.share.size)
        if starting and self.epoch == 0:
            self.context.loss.start(Start(self._parts))
        return self._stage

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Returns discriminative parts and labels of the training images with present weights."""
        assert self._stage is not None
        context = self.context
        found = self._stage.discriminative(context.train_positions.numpy())
        return found.to(context.device), context.labels[context.train_positions]
