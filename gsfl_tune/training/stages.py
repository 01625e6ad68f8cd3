"""One epoch of either stage. Both keep the host out of the way: no synchronisation per step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.data.augment import Augment, center_crop
from gsfl_tune.data.loader import epoch_batches, eval_batches
from gsfl_tune.experiment.config import FinetuneStageConfig, HeadStageConfig
from gsfl_tune.losses import LossTerms
from gsfl_tune.models import HeadOutput, Network
from gsfl_tune.training.optim import (
    create_optimizer,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)

if TYPE_CHECKING:
    from gsfl_tune.data import DecodedImages
    from gsfl_tune.training.trial import Training

_EVAL_BATCH = 256
_EVAL_IMAGE_BATCH = 64


class LossMeter:
    """Sums of the loss terms, kept on the device until the epoch ends."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._count = 0

    def add(self, terms: LossTerms, size: int) -> None:
        """Adds a batch of `size` images."""
        values = [torch.as_tensor(value, device=self._sums.device).detach() for value in terms]
        self._sums += torch.stack([value.double() for value in values]) * size
        self._count += size

    def means(self) -> dict[str, float]:
        """Mean of every term an image; the one synchronisation of an epoch."""
        names = ("loss", "cross_entropy", "reconstruction", "class_center", "shared_center")
        values = (self._sums / max(1, self._count)).tolist()
        return {f"train/{name}": value for name, value in zip(names, values, strict=True)}


class Stage(ABC):
    """A stretch of training with its own frozen part, learning rate and epochs."""

    config: HeadStageConfig | FinetuneStageConfig
    module: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, training: Training) -> None:
        self.training = training
        self.averaged: torch.optim.swa_utils.AveragedModel | None = None

    def start_averaging(self) -> None:
        """Begins the weight average that is validated, where the configuration asks for it."""
        decay = self.training.config.training.ema
        if decay > 0:
            self.averaged = torch.optim.swa_utils.AveragedModel(
                self.module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
            )

    @property
    def evaluated(self) -> nn.Module:
        """The module whose weights are validated and exported."""
        return self.averaged.module if self.averaged is not None else self.module

    @abstractmethod
    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch of the stage (counted from 0) and returns the mean losses."""

    @abstractmethod
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits of images, (N, C) float32 on the CPU, with the evaluated weights."""

    @abstractmethod
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts of pool images, (N, H) float32, without dropout."""

    def _update(self, step: int, total: int, parameters: list[nn.Parameter]) -> None:
        config = self.config
        if config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        factor = learning_rate_factor(step, total, warmup=config.warmup, schedule=config.schedule)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.training.centers is not None:
            self.training.centers.step(self.training.config.loss.center_rate)
        if self.averaged is not None:
            self.averaged.update_parameters(self.module)

    def _loss(self, output: HeadOutput, features: Tensor, labels: Tensor) -> LossTerms:
        terms = self.training.loss(output, features, labels, self.training.centers)
        if self.training.centers is not None:
            self.training.centers.accumulate(output.discriminative, labels)
        return terms


class HeadStage(Stage):
    """Trains the head on cached features of the frozen backbone."""

    def __init__(self, training: Training) -> None:
        super().__init__(training)
        self.config = training.config.training.head
        self.module = training.head
        self._features = training.workspace.features(training.config)
        if training.device.type != "cpu":
            self._features = self._features.to(training.device)
        self.optimizer = create_optimizer(
            self.config,
            parameter_groups(
                self.module.parameters(),
                learning_rate=self.config.learning_rate,
                weight_decay=self.config.weight_decay,
            ),
        )
        self.start_averaging()

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch."""
        training = self.training
        size = self.config.batch_size
        generator = torch.Generator().manual_seed(seed)
        order = training.train_positions[
            torch.randperm(len(training.train_positions), generator=generator)
        ]
        order = order.to(self._features.device)
        per_epoch = -(-len(order) // size)
        total = per_epoch * self.config.epochs
        parameters = list(self.module.parameters())
        meter = LossMeter(training.device)
        self.module.train()
        for step in range(per_epoch):
            batch = order[step * size : (step + 1) * size]
            features = self._features[batch]
            labels = training.labels[batch]
            terms = self._loss(self.module(features), features, labels)
            terms.total.backward()
            self._update(epoch * per_epoch + step, total, parameters)
            meter.add(terms, len(batch))
        return meter.means()

    @torch.inference_mode()
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits from cached features."""
        training = self.training
        features = (
            self._features if part == "pool" else training.workspace.features(training.config, part)
        )
        module = self.evaluated.eval()
        positions = torch.from_numpy(index)
        return torch.cat(
            [
                module.infer(features[batch].to(training.device)).float().cpu()
                for batch in positions.split(_EVAL_BATCH)
            ]
        )

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts from cached features."""
        module = self.module.eval()
        return torch.cat(
            [
                module(self._features[batch]).discriminative.float()
                for batch in torch.from_numpy(index).split(_EVAL_BATCH)
            ]
        )


class FinetuneStage(Stage):
    """Trains the backbone, or its last blocks, together with the head."""

    def __init__(self, training: Training) -> None:
        super().__init__(training)
        config = training.config
        self.config = config.training.finetune
        self.module = self.network = training.network(training.workspace.new_backbone(config))
        self.network.to(training.device, memory_format=torch.channels_last)
        tuned = self.network.backbone.train_last(self.config.blocks)
        decay = self.config.weight_decay
        self.optimizer = create_optimizer(
            self.config,
            parameter_groups(tuned, learning_rate=self.config.learning_rate, weight_decay=decay)
            + parameter_groups(
                self.network.head.parameters(),
                learning_rate=self.config.head_learning_rate,
                weight_decay=decay,
            ),
        )
        self._parameters = tuned + list(self.network.head.parameters())
        preprocessing = self.network.backbone.preprocessing
        self._mean, self._std = preprocessing.mean, preprocessing.std
        self._size = config.data.image_size
        self._augment = Augment(config.data.augment, self._size, self._mean, self._std)
        self.start_averaging()

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch."""
        training = self.training
        accumulate = self.config.accumulate
        index = training.train_positions.numpy()
        micro_batches = max(1, len(index) // self.config.batch_size)
        per_epoch = -(-micro_batches // accumulate)
        total = per_epoch * self.config.epochs
        meter = LossMeter(training.device)
        self.network.train()
        batches = epoch_batches(
            training.workspace.dataset.pool,
            index,
            self.config.batch_size,
            seed=seed,
            epoch=epoch,
            transform=self._augment,
            device=training.device,
            drop_last=len(index) >= self.config.batch_size,
        )
        for number, (images, labels, _) in enumerate(batches):
            images = images.to(memory_format=torch.channels_last)
            with self._autocast():
                features = functional.normalize(self.network.features(images).float(), dim=1)
                output = self.network.head(features)
            terms = self._loss(output, features, labels)
            # The last step of an epoch may hold fewer micro-batches than the others.
            step, place = divmod(number, accumulate)
            held = min(accumulate, micro_batches - step * accumulate)
            (terms.total / held).backward()
            if place + 1 == held:
                self._update(epoch * per_epoch + step, total, self._parameters)
            meter.add(terms, len(labels))
        return meter.means()

    @torch.inference_mode()
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits of whole images through the network."""
        network = self.evaluated.eval()
        return torch.cat(
            [network.head.infer(f).float().cpu() for f in self._features(network, images, index)]
        )

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts of pool images."""
        network = self.network.eval()
        pool = self.training.workspace.dataset.pool
        return torch.cat(
            [network.head(f).discriminative.float() for f in self._features(network, pool, index)]
        )

    def _features(
        self, network: nn.Module, images: DecodedImages, index: np.ndarray
    ) -> Iterator[Tensor]:
        assert isinstance(network, Network)

        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, self._size, self._mean, self._std)

        batches = eval_batches(
            images, index, _EVAL_IMAGE_BATCH, transform=transform, device=self.training.device
        )
        for batch, _ in batches:
            with self._autocast():
                features = network.features(batch.to(memory_format=torch.channels_last))
            yield functional.normalize(features.float(), dim=1)

    def _autocast(self) -> AbstractContextManager[object]:
        training = self.training
        if training.autocast:
            return torch.autocast(training.device.type, dtype=torch.bfloat16)
        return nullcontext()
