"""The head stage: the backbone is frozen, its features (or those of fixed views) are cached."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data.mixing import Mixed, Mixing
from gsfl_tune.data.sampling import epoch_positions
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.config import HeadStageConfig
from gsfl_tune.losses import LossTerms
from gsfl_tune.models import Network, PlainHead
from gsfl_tune.training.feature_table import FeatureTable
from gsfl_tune.training.optim import create_optimizer, parameter_groups
from gsfl_tune.training.stages._base import LossMeter, Stage
from gsfl_tune.training.timeline import StageName

if TYPE_CHECKING:
    from gsfl_tune.data import DecodedImages, Views
    from gsfl_tune.training.trial import Training

_EVAL_BATCH = 512


class HeadStage(Stage[PlainHead, HeadStageConfig]):
    """Trains the head on cached features of the frozen backbone."""

    def __init__(self, training: Training) -> None:
        config = training.config.training.head
        groups = parameter_groups(
            [*training.head.parameters(), *training.loss.parameters()],
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        super().__init__(training, config, training.head, create_optimizer(config, groups))

    def network(self) -> Network:
        """Joins the pretrained backbone with a copy of the head."""
        training = self.training
        network = training.network(training.workspace.new_backbone(training.config))
        network.head = copy.deepcopy(self.evaluated)
        return network

    @property
    def name(self) -> StageName:
        """``head``."""
        return "head"

    @property
    def batches(self) -> int:
        """The last one may not be full."""
        return -(-len(self.training.train_positions) // self.config.batch_size)

    @cached_property
    def _features(self) -> FeatureTable:
        training = self.training
        return training.workspace.table(training.config, "features", training.device)

    @cached_property
    def _views(self) -> Views | None:
        config = self.training.config
        # Before a finetune stage the head only has to come near: images as they are do that, and
        # features of all views would take longer than the stage.
        return None if config.training.finetune.epochs else self.training.workspace.views(config)

    @cached_property
    def _trained(self) -> FeatureTable:
        """What is trained on: the views where there are some."""
        training = self.training
        if self._views is None:
            return self._features
        return training.workspace.table(training.config, "views", training.device)

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch."""
        training = self.training
        size = self.config.batch_size
        drawn = epoch_positions(
            training.train_positions.numpy(),
            training.workspace.dataset.pool.labels,
            torch.Generator().manual_seed(seed),
            balance=training.config.training.balanced_sampling,
        )
        order = torch.from_numpy(drawn)
        shown = None if self._views is None else self._views.shown(epoch, order)
        per_epoch = self.batches
        total = per_epoch * self.config.epochs
        meter = LossMeter()
        mixing, streams = Mixing(self.config.mixup), Streams(seed)
        self.module.train()
        for step, (features, batch) in enumerate(self._trained.batches(order, size, shown)):
            mixed = mixing(features, training.labels[batch], streams)
            for part in self._micro_batches(mixed, len(batch)):
                meter.add(self._train(part, len(part.labels) / len(batch)), len(part.labels))
            self._update(epoch * per_epoch + step, total)
            self._step_of_epoch.done = step + 1
        return meter.means()

    def _train(self, batch: Mixed, share: float) -> LossTerms:
        # Features are of length 1, mixed ones too.
        f = batch.inputs
        f = f if batch.others is None else functional.normalize(f, dim=1)
        output = self.module(f)
        return self._step(
            output, f, batch.labels, others=batch.others, kept=batch.share, share=share
        )

    def rehearse(self) -> None:
        """Takes one optimiser step on random features."""
        training = self.training
        shape = (self.config.batch_size, self.module.feature_dim)
        features = functional.normalize(torch.randn(shape, device=training.device), dim=1)
        labels = torch.zeros(len(features), dtype=torch.int64, device=training.device)
        self._step(self.module.train()(features), features, labels)
        self._update(0, 1)

    @torch.inference_mode()
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits from cached features."""
        training = self.training
        table = self._features
        if part != "pool":
            # Read once, at the end: no copy of it stays on a GPU.
            features = training.workspace.features(training.config, part)
            table = FeatureTable([features], training.device)
        head = self.evaluated.eval()
        batches = table.batches(torch.from_numpy(index), _EVAL_BATCH)
        return torch.cat([head.infer(features).float().cpu() for features, _ in batches])

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts from cached features."""
        head = self.module.eval()
        batches = self._features.batches(torch.from_numpy(index), _EVAL_BATCH)
        return torch.cat([head(features).discriminative for features, _ in batches])
