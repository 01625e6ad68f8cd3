"""A pretraining that trials share: trained as far as one of them needs, and judged on the way.

The accuracy of nearest neighbours at an epoch is kept in the cache, apart from the weights. A trial
whose pretraining is there already reads it, and trains nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.cache.entries import forget
from gsfl_tune.cache.locks import ReadLock
from gsfl_tune.cache.shared import is_shared
from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.data.dataset import Dataset
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.caches.features import digest
from gsfl_tune.training.neighbours import LabelledFeatures, knn_accuracy
from gsfl_tune.training.pretrain.cached import (
    KIND,
    acquire_weights,
    failures_told,
    go_on,
    pretraining_digest,
    starting_backbone,
    train_epoch,
    unfinished_pretraining,
    weights_file,
    with_precision,
    words_of,
)
from gsfl_tune.training.pretrain.pretraining import Pretraining
from gsfl_tune.training.pretrain.team import PretrainingTeam

NEIGHBOURS = 20
# Part of the key of every accuracy; raise it when the same weights give another one.
_CODE_VERSION = 1


class PretrainingStopped(Exception):
    """Raised when a pretraining was asked to stop; what it has trained is kept."""


class _NotThere(Exception):
    """Raised in place of a build, for what can only be taken."""


class SharedPretraining:
    """Holds the pretraining of a configuration, with its weights and accuracies in the cache.

    Args:
        config: The configuration.
        dataset: Its images. The validation part judges; the test part is never read.
        cache_dir: Root of the node's caches.
        device: Where to train.
        rungs: Epochs at which `accuracy` is asked for.
        team: Processes that train with this one; None for one alone.
        asked_to_stop: Tells after every epoch whether to stop.

    Raises:
        UserError: If the backbone or its weights cannot be had.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        cache_dir: Path,
        device: torch.device,
        *,
        rungs: Sequence[int] = (),
        team: PretrainingTeam | None = None,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._cache_dir = cache_dir
        self._device = device
        self._rungs = [epoch for epoch in rungs if epoch < config.pretrain.epochs]
        self._team = team
        self._asked_to_stop = asked_to_stop
        self._images: DecodedImages = images_without_labels(dataset)

    @cached_property
    def _decided(self) -> tuple[Config, str]:
        """Returns the configuration with its precision, and the name of the pretraining."""
        where = (self._images, starting_backbone(self._config), self._device)
        config = with_precision(self._config, *where, self._cache_dir)
        return config, pretraining_digest(config, *where)

    @property
    def key(self) -> str:
        """Returns the name of the pretraining."""
        return self._decided[1]

    def finish(self) -> None:
        """Trains to the last epoch; the weights are in the cache afterwards.

        Raises:
            UserError: If it cannot be trained, or has no usable result; with the reason.
            PretrainingStopped: If it was asked to stop.
        """
        self._weights().close()

    def accuracy(self, epoch: int) -> float | None:
        """Trains up to an epoch, and judges the representation by its nearest neighbours.

        Args:
            epoch: Number of epochs, at most that of the pretraining.

        Returns:
            Share of the validation images whose class the 20 nearest training images by cosine
            find, see `gsfl_tune.training.neighbours`. None where the pretraining is further on and
            was not judged there: it was trained for somebody else.

        Raises:
            UserError: If it cannot be trained, or has no usable result; with the reason.
            PretrainingStopped: If it was asked to stop.
        """
        judged = digest("knn", _CODE_VERSION, NEIGHBOURS, self._dataset.digest)
        path = self._file(f"{judged}.knn-{epoch}")

        def build(target: Path) -> None:
            last = epoch == self._config.pretrain.epochs
            value = self._judged_end() if last else self._judged_at(epoch)
            target.write_text(json.dumps({"epoch": epoch, f"knn_{NEIGHBOURS}": value}))

        what = f"{words_of(self._config, self._images)}: kNN accuracy after {epoch}"
        try:
            with acquire(path, build, what=what) as found:
                return float(json.loads(found.read_text())[f"knn_{NEIGHBOURS}"])
        except _NotThere:
            return None

    def _judged_at(self, epoch: int) -> float:
        """Judges after an epoch in front of the last one."""
        if weights_file(self._cache_dir, self.key).exists():
            raise _NotThere
        backbone = starting_backbone(self._config)
        with unfinished_pretraining(
            self._decided[0], backbone, self._images, self._cache_dir, self._device, self.key
        ) as training:
            if weights_file(self._cache_dir, self.key).exists():
                raise _NotThere  # while this process waited
            self._train(training, epoch)
            if training.epoch > epoch:
                raise _NotThere
            value = self._judge(training)
            if is_shared():
                self._publish(training)
        return value

    def _judged_end(self) -> float:
        """Judges the weights at the end, whoever has trained them."""
        with self._weights() as path:
            model = self._config.model.model_copy(update={"weights": str(path), "licenses": None})
            backbone = starting_backbone(self._config.model_copy(update={"model": model}))
        # Nothing is written there.
        folder = self._cache_dir / KIND
        return self._judge(
            Pretraining(
                self._decided[0], backbone, self._images, folder, key=self.key, device=self._device
            )
        )

    def _judge(self, training: Pretraining) -> float:
        dataset = self._dataset
        train, validation = (
            LabelledFeatures(
                training.features(dataset.pool, index), np.asarray(dataset.pool.labels)[index]
            )
            for index in (dataset.train_index, dataset.validation_index)
        )
        with activity("judging the representation"):
            return round(knn_accuracy(train, validation, NEIGHBOURS, dataset.class_count), 6)

    def _weights(self) -> ReadLock:
        def train(training: Pretraining) -> None:
            self._train(training, self._config.pretrain.epochs)

        where = (self._cache_dir, self._device)
        lock, _ = acquire_weights(self._decided[0], self._images, *where, train)
        for epoch in self._rungs:
            self._checkpoint(epoch).unlink(missing_ok=True)
            forget(self._checkpoint(epoch))
        return lock

    def _train(self, training: Pretraining, epoch: int) -> None:
        go_on(training)
        if is_shared():
            self._take_over(training, epoch)
        training.team = self._team
        with failures_told():
            try:
                while training.epoch < epoch:
                    if self._asked_to_stop():
                        raise PretrainingStopped
                    train_epoch(training)
            finally:
                training.leave()

    def _take_over(self, training: Pretraining, epoch: int) -> None:
        """Continues where another node has stopped, if that is further on."""
        for rung in sorted(self._rungs, reverse=True):
            if training.epoch < rung <= epoch:
                with contextlib.suppress(_NotThere), acquire(self._checkpoint(rung), _absent) as it:
                    shutil.copyfile(it, training.checkpoint_path)
                    go_on(training)
                    return

    def _publish(self, training: Pretraining) -> None:
        """Shows other nodes the checkpoint."""

        def copy(target: Path) -> None:
            shutil.copyfile(training.checkpoint_path, target)

        acquire(self._checkpoint(training.epoch), copy, what="checkpoint of a pretraining").close()

    def _checkpoint(self, epoch: int) -> Path:
        return self._file(f"epoch-{epoch}")

    def _file(self, name: str) -> Path:
        return self._cache_dir / KIND / f"{self.key}.{name}"


def _absent(target: Path) -> None:
    raise _NotThere
