"""What all stages share: passes of the method, gradients, the update, means of the losses.

No stage asks the device for a number before its epoch ends: the host runs ahead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.activity import Activity, activity
from gsfl_tune.data import Batch, DecodedImages, Targets
from gsfl_tune.experiment.config import FinetuneStageConfig, HeadStageConfig
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import Passes
from gsfl_tune.models import HeadOutput, Network
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.optim import WeightAverage, learning_rate_factor, set_learning_rate
from gsfl_tune.training.process_group import Ranks
from gsfl_tune.training.timeline import StageName

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
        context: Of the training that it belongs to.
        config: The stage's section.
        module: What is trained.
        optimizer: Of its trainable parameters; every group carries its ``peak`` learning rate.
    """

    def __init__(
        self, context: StageContext, config: C, module: M, optimizer: torch.optim.Optimizer
    ) -> None:
        self.context = context
        self.config = config
        self.module = module
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.averaged: WeightAverage | None = None
        decay = context.config.training.ema
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
            self._step_of_epoch.before = self.context.epoch
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

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """The passes through the model that is trained."""

    def _micro_batches(self, batch: Batch, images: int) -> Iterator[Batch]:
        """A batch in the pieces that fit the memory, see `StageContext.pieces`.

        Their gradients add up to those of the whole batch, up to rounding. Batch norm sees the
        pieces: at least two images each, so that it has something to normalise.

        Args:
            batch: Of B images.
            images: Decides, with `StageContext.pieces`, how many pieces; at most B.
        """
        # May be fewer than asked for: of nine, four pieces are three of three.
        return batch.chunk(min(self.context.pieces, max(1, images // 2)))

    def _step(self, batch: Batch, share: float = 1.0) -> LossTerms:
        """Computes loss and gradients of a micro-batch.

        Args:
            batch: The micro-batch.
            share: Of the micro-batch in an optimiser step.
        """
        terms = self.context.method.step(batch, self.passes)
        (terms.total * share if share != 1.0 else terms.total).backward()
        return terms

    def loss(
        self, output: HeadOutput, features: Tensor, targets: Targets, *, note: bool = True
    ) -> LossTerms:
        """Computes the loss of one pass, see `gsfl_tune.methods.Passes`."""
        loss = self.context.loss
        if not note:
            loss.eval()
        terms = self._loss(output, features, targets.labels, targets, targets.teacher)
        if targets.others is not None:
            # What terms remember is told by the larger part alone.
            loss.eval()
            teacher = targets.teacher_of_others
            teacher = targets.teacher if teacher is None else teacher
            others = self._loss(output, features, targets.others, targets, teacher)
            terms = terms.blended(others, targets.kept)
        loss.train()
        return terms

    def _loss(
        self,
        output: HeadOutput,
        features: Tensor,
        labels: Tensor,
        targets: Targets,
        teacher: Tensor | None,
    ) -> LossTerms:
        context = self.context
        done = self._step_of_epoch.done / self.batches
        terms: LossTerms = context.loss(
            output,
            features,
            labels,
            context.head.classifier.weight,
            progress=min(1.0, (context.epoch + done) / context.total_epochs),
            soft=targets.soft,
            weights=targets.weights,
            teacher=teacher,
        )
        return terms

    def _update(self, step: int, total: int) -> None:
        """Takes the optimiser step, then those of loss terms, method and weight average."""
        config, context = self.config, self.context
        if context.ranks is not None:
            self._add_up(context.ranks)
        if config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        factor = learning_rate_factor(step, total, warmup=config.warmup, schedule=config.schedule)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        context.loss.after_step()
        context.method.after_step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.module)

    def _add_up(self, ranks: Ranks) -> None:
        """Adds up gradients, and what loss terms and the method have noted, of all ranks."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        context = self.context
        ranks.add_up([*gradients, *context.loss.sums(), *context.method.sums()])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the stage; the same whatever the number of ranks."""
        context = self.context
        state = {
            "module": self.module.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": context.loss.state_dict(),
        }
        if method := context.method.state_dict():
            state["method"] = method
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        context = self.context
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        context.method.load_state_dict(state.get("method", {}))
        if "loss" in state:
            context.loss.load_state_dict(state["loss"])
        elif context.loss.centers is not None:  # of an earlier version
            context.loss.centers.load_state_dict(state["centers"])

    def _random_batch(self, inputs: Tensor) -> Batch:
        """A batch of random inputs, each in as many views as the method asks for."""
        context = self.context
        labels = torch.zeros(len(inputs), dtype=torch.int64, device=context.device)
        teacher = None
        if context.teacher is not None:
            teacher = inputs.new_zeros(len(inputs), context.head.class_count)
        views = (inputs,) * context.method.views
        return Batch(views, Targets(labels, teacher=teacher), torch.arange(len(inputs)))
