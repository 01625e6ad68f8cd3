"""The steps that all stages share: passes of the method, gradients, updates, mean losses.

No stage reads a number from the device before its epoch ends, so that the host runs ahead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.activity import Activity, activity
from gsfl_tune.data import Batch, DecodedImages, Targets
from gsfl_tune.data.draws import image_draws
from gsfl_tune.experiment.config import Config
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import STREAM, Passes
from gsfl_tune.models import HeadOutput, Network
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.optim import (
    WeightAverage,
    lay_out_state,
    scheduled,
    set_learning_rate,
)
from gsfl_tune.training.process_group import Ranks
from gsfl_tune.training.sharding import Shards
from gsfl_tune.training.stages.stage_config import StageConfig
from gsfl_tune.training.stages.work import Work
from gsfl_tune.training.timeline import StageName

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=StageConfig)


class Stage(ABC, Generic[M, C]):
    """Trains one stage of one training.

    A subclass is made as `StageKind` says.

    Args:
        context: Context of the training.
        name: Name of the row of `gsfl_tune.training.timeline.STAGES`.
        config: The stage's section.
        module: The trained module.
        optimizer: Optimiser of its trainable parameters; every group has its ``peak`` learning
            rate.
    """

    def __init__(
        self,
        context: StageContext,
        name: StageName,
        config: C,
        module: M,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.context = context
        self.name = name
        self.config = config
        self.module = module
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.averaged: WeightAverage | None = None
        decay = context.config.training.ema
        if decay > 0:
            self.averaged = WeightAverage(module, decay)
        # Where several processes divide the parameters too.
        self.shards: Shards | None = None
        self._step_of_epoch = Activity("")
        # Of the epoch, for what a method draws.
        self._seed = 0

    # Whether it needs the device memory that features of the head stage take.
    needs_device: ClassVar[bool] = False
    # Whether its batches have images without labels for methods that use them.
    takes_unlabelled: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def work(config: Config, train: int, validation: int, classes: int) -> Work:
        """Returns the work of an epoch, the stage's price.

        Args:
            config: A configuration in which the stage has epochs.
            train: Number of training images.
            validation: Number of images that are validated after every epoch.
            classes: C.

        Raises:
            BackboneError: When the backbone cannot be built.
        """

    @abstractmethod
    def network(self) -> Network:
        """Copies the whole network, with the evaluated weights."""

    def handed_on(self) -> Mapping[str, Tensor] | None:
        """Returns the trained network for the stage behind it; None if only the head was trained.

        The head and the state of loss and method are those of the context, and go on by themselves.
        """
        return None

    def unit_features(self, part: Literal["pool", "test"], index: np.ndarray) -> Tensor | None:
        """Returns what the head reads of images, on the CPU; None if the backbone was not trained.

        Unit features (N, D), and what is added to scores behind them, see `PlainHead.divided`.
        """
        return None

    @property
    def evaluated(self) -> M:
        """Returns the module that is validated and exported: the average, if there is one."""
        if self.averaged is None:
            return self.module
        module: M = self.averaged.module  # type: ignore[assignment]
        return module

    @property
    @abstractmethod
    def batches(self) -> int:
        """Returns the number of batches in an epoch."""

    def run_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch as `train_epoch` does, and reports its progress."""
        self._seed = seed
        what = f"{self.name} epoch {epoch + 1}/{self.config.epochs}"
        with activity(what, self.batches, "batches") as self._step_of_epoch:
            self._step_of_epoch.before = self.context.epoch
            return self.train_epoch(epoch, seed)

    @abstractmethod
    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch.

        Args:
            epoch: Epoch of the stage, from 0.
            seed: Seed of the order and the augmentation.

        Returns:
            Means of the loss and its terms per image, as ``train/<term>``; and ``start_seconds`` if
            the stage did something once, before this epoch.
        """

    def divide(self, size: int) -> None:
        """Prepares for batches that `size` ranks share.

        Raises:
            NotImplementedError: When one process trains this stage alone.
        """
        raise NotImplementedError(f"{type(self).__name__} is not divided")

    def shard(self, ranks: Ranks) -> None:
        """Divides the trained parameters over all ranks, behind `divide`."""
        averaged = [] if self.averaged is None else [self.averaged.module]
        size = self.context.config.data.image_size
        self.shards = Shards([self.module, *averaged], self.optimizer, ranks, size)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    @abstractmethod
    def rehearse(self) -> None:
        """Takes one optimiser step on random input of full size, to test the memory."""

    @abstractmethod
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Returns logits with the evaluated weights.

        Args:
            images: Decoded images of the part.
            part: ``pool`` or ``test``.
            index: (N,) positions.

        Returns:
            (N, C) float32 on the CPU.
        """

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Returns whether its answers are those of a bundle, which computes in fp32."""

    @contextmanager
    def made_exact(self) -> Iterator[None]:
        """Computes `logits` and `unit_features` as a bundle does, within a block."""
        own = self.context
        self.context = own.made_exact()
        try:
            yield
        finally:
            self.context = own

    def measured(self) -> dict[str, float]:
        """Returns further numbers of the images of the last validation, on every rank."""
        return {}

    @abstractmethod
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Returns discriminative parts of pool images, (N, H) float32, with the trained weights."""

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """Returns the passes through the trained model."""

    def _micro_batches(self, batch: Batch, images: int) -> Iterator[Batch]:
        """Splits a batch into pieces that fit into memory, see `StageContext.pieces`.

        Their gradients add up to those of the whole batch, up to rounding. Batch norm sees the
        pieces: at least two images each, so that it has something to normalise.

        Args:
            batch: Batch of B images.
            images: With `StageContext.pieces`, decides the number of pieces; at most B.
        """
        # There may be fewer pieces than asked for: nine images in four pieces are three times
        # three.
        return batch.chunk(min(self.context.pieces, max(1, images // 2)))

    def _step(self, batch: Batch, share: float = 1.0) -> LossTerms:
        """Computes loss and gradients of a micro-batch.

        Args:
            batch: The micro-batch.
            share: Share of the micro-batch in an optimiser step.
        """
        terms = self.context.method.step(batch, self.passes)
        if self.context.sweep is not None:
            self.context.sweep.saw(terms.total, share)
        (terms.total * share if share != 1.0 else terms.total).backward()
        return terms

    def draws(self, positions: Tensor, width: int) -> Tensor:
        """Draws random numbers for a method, see `gsfl_tune.methods.Passes`."""
        return image_draws(self._seed, STREAM, positions, width)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Puts the trained module into evaluation mode for a while."""
        was = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was)

    def loss(
        self, output: HeadOutput, features: Tensor, targets: Targets, *, note: bool = True
    ) -> LossTerms:
        """Computes the loss of one pass, see `gsfl_tune.methods.Passes`."""
        loss = self.context.loss
        if not note:
            loss.eval()
        extras = {**targets.extras, **self.extras()}
        terms = self._loss(output, features, targets.labels, targets, extras)
        if targets.others is not None:
            # Terms store only the larger part.
            loss.eval()
            theirs = {**extras, **targets.extras_of_others}
            others = self._loss(output, features, targets.others, targets, theirs)
            terms = terms.blended(others, targets.kept)
        loss.train()
        return terms

    def cross_entropy(self, logits: Tensor, targets: Targets) -> Tensor:
        """Computes the cross-entropy of scores, see `gsfl_tune.methods.Passes`."""
        cross = partial(self.context.loss.cross_entropy, logits)
        own: Tensor = cross(targets.labels, targets.soft, targets.weights)
        if targets.others is None:
            return own
        others: Tensor = cross(targets.others, targets.soft, targets.weights)
        return targets.kept * own + (1 - targets.kept) * others

    def _loss(
        self,
        output: HeadOutput,
        features: Tensor,
        labels: Tensor,
        targets: Targets,
        extras: Mapping[str, Any],
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
            extras=extras,
        )
        return terms

    def extras(self) -> Mapping[str, Any]:
        """Returns what the last pass adds to `LossInput.extras`, once."""
        return {}

    def _described(self, batch: Batch) -> Batch:
        """Adds what is known of its images, and terms learn, to a batch."""
        known = self.context.known_of_images
        if not known:
            return batch
        own = {name: each[batch.positions.to(each.device)] for name, each in known.items()}
        return replace(batch, targets=batch.targets.having(**own))

    def _update(self, step: int, total: int) -> None:
        """Takes the optimiser step, then updates loss terms, method and weight average."""
        config, context, shards = self.config, self.context, self.shards
        if shards is not None:
            shards.take_gradients()
        if context.ranks is not None:
            self._add_up(context.ranks)
        if config.clip_norm > 0:
            clip = torch.nn.utils.clip_grad_norm_ if shards is None else shards.clip
            clip(self.parameters, config.clip_norm)
        factor = scheduled(config, step, total) if context.sweep is None else context.sweep.factor()
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        context.loss.after_step()
        context.method.after_step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.module)

    def _add_up(self, ranks: Ranks) -> None:
        """Sums gradients, and values stored by loss terms and the method, over all ranks."""
        context, shards = self.context, self.shards
        # Those of divided parameters are summed in the backward pass.
        whole = (p for p in self.parameters if shards is None or not shards.is_part(p))
        gradients = [p.grad for p in whole if p.grad is not None]
        ranks.add_up([*gradients, *context.loss.sums(), *context.method.sums()])

    def state_dict(self) -> dict[str, Any]:
        """Returns the stage's state for a checkpoint; the same for any number of ranks.

        Where parameters are divided, all ranks must call it at once.
        """
        context, shards = self.context, self.shards
        averaged = None if self.averaged is None else self.averaged.state_dict()
        state: dict[str, Any] = {
            "module": self.module.state_dict(),
            "averaged": averaged,
            "optimizer": self.optimizer.state_dict(),
            "loss": context.loss.state_dict(),
        }
        if shards is not None:
            state["module"] = shards.whole(state["module"])
            state["averaged"] = averaged and shards.whole(averaged)
            state["optimizer"] = shards.optimizer_state(self.optimizer)
        if method := context.method.state_dict():
            state["method"] = method
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Restores the state from `state_dict`.

        Args:
            state: The state.
            to_train: Whether the optimiser's is needed too.
        """
        context, shards = self.context, self.shards
        networks: list[tuple[nn.Module, str]] = [(self.module, "module")]
        if self.averaged is not None:
            networks.append((self.averaged, "averaged"))
        for network, name in networks:
            if shards is None:
                network.load_state_dict(state[name])
            else:
                shards.load(network, state[name])
        if to_train and shards is None:
            self.optimizer.load_state_dict(state["optimizer"])
        elif to_train and shards is not None:
            shards.load_optimizer(self.optimizer, state["optimizer"])
        lay_out_state(self.optimizer)
        context.method.load_state_dict(state.get("method", {}))
        if "loss" in state:
            context.loss.load_state_dict(state["loss"])
        else:
            context.loss.load_earlier(state)

    def _random_batch(self, inputs: Tensor) -> Batch:
        """Makes a batch of random inputs, each in as many views as the method needs."""
        context = self.context
        labels = torch.zeros(len(inputs), dtype=torch.int64, device=context.device)
        views = (inputs,) * context.method.views
        targets = Targets(labels, extras=context.random_extras(inputs))
        batch = Batch(views, targets, torch.arange(len(inputs)))
        if not (self.takes_unlabelled and context.method.unlabelled):
            return batch
        more = torch.cat([inputs] * context.method.unlabelled)
        return replace(batch, unlabelled=(more, more))
