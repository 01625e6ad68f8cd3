"""The finetune stage: backbone, or its last blocks, and head together, on augmented images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment, center_crop
from gsfl_tune.data.loader import epoch_batches, eval_batches
from gsfl_tune.experiment.config import FinetuneStageConfig
from gsfl_tune.models import Network
from gsfl_tune.training.optim import create_optimizer, parameter_groups
from gsfl_tune.training.stages._base import LossMeter, Stage

if TYPE_CHECKING:
    from gsfl_tune.data import DecodedImages
    from gsfl_tune.training.trial import Training

_EVAL_BATCH = 64


class FinetuneStage(Stage[Network, FinetuneStageConfig]):
    """Trains a copy of the pretrained backbone together with the head."""

    def __init__(self, training: Training) -> None:
        config = training.config.training.finetune
        network = training.network(training.workspace.new_backbone(training.config))
        network.to(device=training.device).to(memory_format=torch.channels_last)
        decay = config.weight_decay
        groups = parameter_groups(
            network.backbone.train_last(config.blocks),
            learning_rate=config.learning_rate,
            weight_decay=decay,
        ) + parameter_groups(
            network.head.parameters(), learning_rate=config.head_learning_rate, weight_decay=decay
        )
        super().__init__(training, config, network, create_optimizer(config, groups))
        data = training.config.data
        self._size = data.image_size
        self._mean, self._std = network.backbone.preprocessing
        self._augment = Augment(data.augment, self._size, self._mean, self._std)

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch; images that do not fill a micro-batch wait for another epoch."""
        training, config = self.training, self.config
        index = training.train_positions.numpy()
        micro_batches = max(1, len(index) // config.batch_size)
        per_epoch = -(-micro_batches // config.accumulate)
        total = per_epoch * config.epochs
        meter = LossMeter()
        self.module.train()
        batches = epoch_batches(
            training.workspace.dataset.pool,
            index,
            config.batch_size,
            seed=seed,
            epoch=epoch,
            transform=self._augment,
            device=training.device,
            drop_last=len(index) >= config.batch_size,
        )
        for number, (images, labels, _) in enumerate(batches):
            step, place = divmod(number, config.accumulate)
            # The last step of an epoch may hold fewer micro-batches than the others.
            held = min(config.accumulate, micro_batches - step * config.accumulate)
            with self._autocast():
                features = self.module.features(images.to(memory_format=torch.channels_last))
                output = self.module.head(features)
            terms = self._step(output, features, labels, share=1 / held)
            if place + 1 == held:
                self._update(epoch * per_epoch + step, total)
            meter.add(terms, len(labels))
        return meter.means()

    def rehearse(self) -> None:
        """Takes one optimiser step on random images."""
        training = self.training
        shape = (self.config.batch_size, 3, self._size, self._size)
        images = torch.randn(shape, device=training.device)
        labels = torch.zeros(len(images), dtype=torch.int64, device=training.device)
        self.module.train()
        with self._autocast():
            features = self.module.features(images.to(memory_format=torch.channels_last))
            output = self.module.head(features)
        self._step(output, features, labels)
        self._update(0, 1)

    @torch.inference_mode()
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits of whole images through the network."""
        network = self.evaluated.eval()
        features = self._features(network, images, index)
        return torch.cat([network.head.infer(batch).float().cpu() for batch in features])

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts of pool images."""
        network = self.module.eval()
        features = self._features(network, self.training.workspace.dataset.pool, index)
        return torch.cat([network.head(batch).discriminative.float() for batch in features])

    def _features(
        self, network: Network, images: DecodedImages, index: np.ndarray
    ) -> Iterator[Tensor]:
        def transform(batch: Tensor) -> Tensor:
            return center_crop(batch, self._size, self._mean, self._std)

        batches = eval_batches(
            images, index, _EVAL_BATCH, transform=transform, device=self.training.device
        )
        for batch, _, _ in batches:
            with self._autocast():
                features = network.features(batch.to(memory_format=torch.channels_last))
            yield features

    def _autocast(self) -> AbstractContextManager[object]:
        if self.training.autocast:
            return torch.autocast(self.training.device.type, dtype=torch.bfloat16)
        return nullcontext()
