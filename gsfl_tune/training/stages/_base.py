"""What both stages share: the update after a batch, the weight average, the means of the losses.

No stage asks the device for a number before its epoch ends: the host runs ahead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.activity import Activity, activity
from gsfl_tune.data.mixing import Mixed
from gsfl_tune.experiment.config import FinetuneStageConfig, HeadStageConfig
from gsfl_tune.losses import LossTerms
from gsfl_tune.models import HeadOutput, Network
from gsfl_tune.training.optim import WeightAverage, learning_rate_factor, set_learning_rate
from gsfl_tune.training.timeline import StageName

if TYPE_CHECKING:
    from gsfl_tune.data import DecodedImages
    from gsfl_tune.training.ranks import Ranks
    from gsfl_tune.training.trial import Training

StageConfig = HeadStageConfig | FinetuneStageConfig
M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=StageConfig)


class LossMeter:
    """The loss terms of every batch, kept on the device until the epoch ends."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._sizes: list[int] = []

    def add(self, terms: LossTerms, size: int) -> None:
        """Adds a batch of `size` images."""
        named = terms.detached()
        self._names = list(named)
        self._values.append(torch.stack(list(named.values())))
        self._sizes.append(size)

    def means(self, ranks: Ranks | None = None) -> dict[str, float]:
        """Mean of every term an image, of all ranks; the one synchronisation of an epoch."""
        values = torch.stack(self._values).cpu().double()
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        sums, count = sizes @ values, sizes.sum()
        if ranks is not None:
            ranks.add_up([sums, count])
        means = (sums / count).tolist()
        return {f"train/{name}": value for name, value in zip(self._names, means, strict=True)}


class Stage(ABC, Generic[M, C]):
    """One stage of one training.

    Args:
        training: The training that it belongs to.
        config: The stage's section.
        module: What is trained.
        optimizer: Of its trainable parameters; every group carries its ``peak`` learning rate.
    """

    def __init__(
        self, training: Training, config: C, module: M, optimizer: torch.optim.Optimizer
    ) -> None:
        self.training = training
        self.config = config
        self.module = module
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.averaged: WeightAverage | None = None
        decay = training.config.training.ema
        if decay > 0:
            self.averaged = WeightAverage(module, decay)
        self._step_of_epoch = Activity("")

    # Whether it needs the memory of the device that cached features of the head stage take.
    needs_device: ClassVar[bool] = False

    @abstractmethod
    def network(self) -> Network:
        """Copies the whole network, with the evaluated weights."""

    def unit_features(self, part: Literal["pool", "test"], index: np.ndarray) -> Tensor | None:
        """Return unit features (N, D) on the CPU; None where the backbone was not trained."""
        return None

    @property
    def evaluated(self) -> M:
        """The module whose weights are validated and exported: the average where there is one."""
        if self.averaged is None:
            return self.module
        module: M = self.averaged.module  # type: ignore[assignment]
        return module

    @property
    @abstractmethod
    def name(self) -> StageName:
        """Of the stage."""

    @property
    @abstractmethod
    def batches(self) -> int:
        """Batches of an epoch."""

    def run_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch as `train_epoch` does, and says how far it is."""
        what = f"{self.name} epoch {epoch + 1}/{self.config.epochs}"
        with activity(what, self.batches, "batches") as self._step_of_epoch:
            self._step_of_epoch.before = self.training.epoch
            return self.train_epoch(epoch, seed)

    @abstractmethod
    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch.

        Args:
            epoch: Epoch of the stage, from 0.
            seed: Of the order and the augmentation.

        Returns:
            Mean of the loss and of its terms an image, as ``train/<term>``.
        """

    def divide(self, size: int) -> None:
        """Prepares for batches that are divided over `size` ranks.

        Raises:
            NotImplementedError: When one process trains this stage alone.
        """
        raise NotImplementedError(f"{type(self).__name__} is not divided")

    @abstractmethod
    def rehearse(self) -> None:
        """Takes one optimiser step on random input of full size: does the model fit?"""

    @abstractmethod
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Logits with the evaluated weights.

        Args:
            images: Decoded images of the part.
            part: ``pool`` or ``test``.
            index: (N,) positions.

        Returns:
            (N, C) float32 on the CPU.
        """

    @abstractmethod
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Discriminative parts of pool images, (N, H) float32, with the trained weights."""

    def _micro_batches(self, batch: Mixed, images: int) -> Iterator[Mixed]:
        """A batch in the pieces that fit the memory, see `Training.pieces`.

        Their gradients add up to those of the whole batch, up to rounding. Batch norm sees the
        pieces: at least two images each, so that it has something to normalise.

        Args:
            batch: Of B images.
            images: Decides, with `Training.pieces`, how many pieces; at most B.
        """
        count = min(self.training.pieces, max(1, images // 2))
        # May be fewer than asked for: of nine, four pieces are three of three.
        inputs, labels = batch.inputs.chunk(count), batch.labels.chunk(count)
        others = [None] * len(inputs) if batch.others is None else batch.others.chunk(count)
        for piece in zip(inputs, labels, others, strict=True):
            yield Mixed(*piece, batch.share)

    def _step(
        self,
        output: HeadOutput,
        features: Tensor,
        labels: Tensor,
        *,
        others: Tensor | None = None,
        kept: float = 1.0,
        share: float = 1.0,
    ) -> LossTerms:
        """Computes loss and gradients of a micro-batch.

        Args:
            output: Of the head.
            features: (B, D) unit features.
            labels: (B,).
            others: (B,) labels of what was mixed in; None where nothing was.
            kept: Share of what was not mixed in.
            share: Of the micro-batch in an optimiser step.
        """
        terms = self._loss(output, features, labels)
        if others is not None:
            # What terms remember is told by the larger part alone.
            self.training.loss.eval()
            terms = terms.blended(self._loss(output, features, others), kept)
            self.training.loss.train()
        (terms.total * share if share != 1.0 else terms.total).backward()
        return terms

    def _loss(self, output: HeadOutput, features: Tensor, labels: Tensor) -> LossTerms:
        training = self.training
        done = self._step_of_epoch.done / self.batches
        terms: LossTerms = training.loss(
            output,
            features,
            labels,
            training.head.classifier.weight,
            progress=min(1.0, (training.epoch + done) / training.total_epochs),
        )
        return terms

    def _update(self, step: int, total: int) -> None:
        """Takes the optimiser step, then those of the loss terms and of the average."""
        config = self.config
        if self.training.ranks is not None:
            self._add_up(self.training.ranks)
        if config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        factor = learning_rate_factor(step, total, warmup=config.warmup, schedule=config.schedule)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.training.loss.after_step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.module)

    def _add_up(self, ranks: Ranks) -> None:
        """Adds up gradients, and what the loss terms have noted, of all ranks."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        ranks.add_up([*gradients, *self.training.loss.sums()])
