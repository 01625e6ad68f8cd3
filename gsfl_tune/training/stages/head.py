"""The head stage: trains the head on cached features of a frozen backbone."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.cache.building import cache_seconds
from gsfl_tune.data import Batch, DecodedImages, Targets, Views
from gsfl_tune.data.mixing import Mixing
from gsfl_tune.data.sampling import epoch_positions
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.config import Config, HeadStageConfig
from gsfl_tune.losses.attributes import ATTRIBUTES
from gsfl_tune.losses.distill import TEACHER
from gsfl_tune.methods import Passes, create_method
from gsfl_tune.models import Network, PlainHead
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.generate import (
    FeatureGenerator,
    FilledEpoch,
    class_means,
    fit_generator,
    generator_numbers,
    generator_operations,
    made_count,
)
from gsfl_tune.training.optim import create_optimizer, parameter_groups
from gsfl_tune.training.stages._base import Stage
from gsfl_tune.training.stages.meter import LossMeter
from gsfl_tune.training.stages.work import (
    STEP,
    UPDATE,
    Work,
    feature_size,
    method_kind,
    trained_head_parameters,
)
from gsfl_tune.training.timeline import StageName

_EVAL_BATCH = 512


class HeadStage(Stage[PlainHead, HeadStageConfig]):
    """Trains the head on cached features of the frozen backbone."""

    def __init__(
        self,
        context: StageContext,
        name: StageName = "head",
        before: Mapping[str, Tensor] | None = None,
    ) -> None:
        if context.backbone_trained or before is not None:
            raise ValueError(
                f"stage {name} reads features of the pretrained backbone, which a stage in front "
                "of it has changed"
            )
        config = context.config.training.head
        groups = parameter_groups(
            [
                *context.head.parameters(),
                *context.loss.parameters(),
                *context.method.parameters(),
            ],
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        super().__init__(context, name, config, context.head, create_optimizer(config, groups))
        self._generator: FeatureGenerator | None = None
        # Seconds of its training, until they are reported.
        self._started = 0.0

    def network(self) -> Network:
        """Joins the pretrained backbone with a copy of the head."""
        context = self.context
        network = context.network(context.workspace.new_backbone(context.config))
        network.head = copy.deepcopy(self.evaluated)
        return network

    @staticmethod
    def work(config: Config, train: int, validation: int, classes: int) -> Work:
        """Returns the work of an epoch, see `Stage.work`."""
        stage = config.training.head
        parameters = trained_head_parameters(config, classes)
        made = made_count(train, stage.generate.share)
        train += made
        steps = math.ceil(train / stage.batch_size)
        method = create_method(config.training)
        # What reads maps takes a single pass where there are none.
        passes = 1 if method.reads_maps else method.head_passes
        operations = 2 * parameters * (STEP * passes * train + validation)
        operations += UPDATE * parameters * steps
        once, once_steps = 0.0, 0
        if stage.generate.share:
            dim = feature_size(config)
            own, _ = generator_numbers(stage.generate, dim, 0)
            operations += 2 * own * made
            once = generator_operations(stage.generate, dim)
            once_steps = stage.generate.steps * (stage.generate.critic_steps + 1)
        kind = (config.model.head, *method_kind(config))
        return Work("head", kind, operations, steps, stage.epochs, once, once_steps)

    @property
    def batches(self) -> int:
        """Returns the number of batches; the last one may not be full."""
        images = len(self.context.train_positions)
        return -(
            -(images + made_count(images, self.config.generate.share)) // self.config.batch_size
        )

    @cached_property
    def _features(self) -> FeatureTable:
        context = self.context
        return context.workspace.table(context.config, "features", context.device)

    @cached_property
    def _views(self) -> Views | None:
        config = self.context.config
        # Before a finetune stage a rough head is enough. Un-augmented images give that, and
        # features of all views would take longer than the stage.
        return None if config.training.finetune.epochs else self.context.workspace.views(config)

    @cached_property
    def _trained(self) -> FeatureTable:
        """Returns the features to train on: those of views, if there are some."""
        context = self.context
        if self._views is None:
            return self._features
        return context.workspace.table(context.config, "views", context.device)

    @cached_property
    def _taught(self) -> FeatureTable | None:
        """Returns the teacher's scores of the training images."""
        context = self.context
        if context.teacher is None:
            return None
        views = self._views is not None
        tables = context.workspace.teacher_tables(context.config, views=views)
        return FeatureTable(tables, context.device)

    # Made for every step. Stored, it would be a reference cycle that keeps the memory.
    @property
    def passes(self) -> Passes:
        """Returns the passes through the trained head."""
        return self._passes(self.module)

    def _passes(self, head: PlainHead) -> Passes:
        return Passes(
            features=_as_it_is,
            head=head,
            infer=head.infer,
            loss=self.loss,
            parameters=self.parameters,
            cross_entropy=self.cross_entropy,
            draws=self.draws,
            evaluating=self.evaluating,
        )

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch."""
        context = self.context
        size = self.config.batch_size
        drawn = epoch_positions(
            context.train_positions.numpy(),
            context.workspace.dataset.pool.labels,
            torch.Generator().manual_seed(seed),
            balance=context.config.training.balanced_sampling,
        )
        filled = self._filled(drawn, seed)
        order = torch.from_numpy(drawn) if filled is None else filled.order
        per_epoch = self.batches
        total = per_epoch * self.config.epochs
        meter = LossMeter()
        mixing, streams = Mixing(self.config.mixup), Streams(seed)
        self.module.train()
        context.method.train()
        shown = self._shown(epoch, order)
        read = self._read(order, shown, filled)
        taught: Iterator[Tensor | None] = repeat(None)
        if self._taught is not None:
            # Of as many views: in the same order.
            taught = (views[0] for views, _ in self._taught.batches(order, size, shown))
        for step, ((views, positions), teacher) in enumerate(zip(read, taught, strict=False)):
            extras = {} if teacher is None else {TEACHER: teacher}
            targets = Targets(context.labels[positions], extras=extras)
            batch = self._described(Batch(views, targets, positions))
            if filled is not None:
                batch = _undescribed(batch, filled.made[step * size :][: len(batch)])
            mixed = mixing(batch, streams)
            if mixed.targets.others is not None:
                # Features have length 1, also mixed ones.
                mixed = mixed.seen_as(*(functional.normalize(each, dim=1) for each in mixed.views))
            for part in self._micro_batches(mixed, len(batch)):
                meter.add(self._step(part, len(part) / len(batch)), len(part))
            self._update(epoch * per_epoch + step, total)
            self._step_of_epoch.done = step + 1
        told = meter.means()
        if self._started:
            told["start_seconds"], self._started = round(self._started, 4), 0.0
        return told

    def _filled(self, drawn: np.ndarray, seed: int) -> FilledEpoch | None:
        """Adds generated features to an epoch; None without a generator.

        Raises:
            UserError: If there is nothing to train a generator on.
        """
        config, context = self.config.generate, self.context
        if not config.share:
            return None
        positions = context.train_positions.numpy()
        labels = context.workspace.dataset.pool.labels
        if self._generator is None:
            began = time.perf_counter() - cache_seconds()
            means = class_means(self._features, positions, labels, context.head.class_count)
            self._generator = fit_generator(
                self._trained, means, positions, labels, config, seed=context.seed
            )
            self._started = time.perf_counter() - cache_seconds() - began
        return FilledEpoch.of(
            drawn, positions, labels, share=config.share, noise_dim=config.noise_dim, seed=seed
        )

    def _read(
        self, order: Tensor, shown: Tensor, filled: FilledEpoch | None
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields the views of each batch, and their positions."""
        table, size = self._trained, self.config.batch_size
        if filled is None:
            return table.batches(order, size, shown)
        assert self._generator is not None
        return filled.batches(table, size, shown, self._generator, self.context.labels)

    def _shown(self, epoch: int, order: Tensor) -> Tensor:
        """Returns the views of each image in an epoch, (V, N); without views, always the same."""
        count = self.context.method.views
        if self._views is None:
            return torch.zeros((count, len(order)), dtype=torch.int64)
        return torch.stack([self._views.shown(epoch, order, place) for place in range(count)])

    def state_dict(self) -> dict[str, Any]:
        """Returns the stage's state for a checkpoint, with the trained generator."""
        state = super().state_dict()
        if self._generator is not None:
            state["generator"] = self._generator.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Restores the state from `state_dict`; a generator is not trained again."""
        super().load_state_dict(state, to_train=to_train)
        if weights := state.get("generator"):
            config, dim = self.config.generate, self.module.feature_dim
            means = weights.get("means")
            generator = FeatureGenerator(dim, config.noise_dim, config.hidden_dim, means)
            generator.load_state_dict(weights)
            self._generator = generator.to(self.context.device).eval().requires_grad_(False)

    def rehearse(self) -> None:
        """Takes one optimiser step on random features."""
        shape = (self.config.batch_size, self.module.feature_dim)
        features = functional.normalize(torch.randn(shape, device=self.context.device), dim=1)
        self.module.train()
        self._step(self._random_batch(features))
        self._update(0, 1)

    @property
    def exact(self) -> bool:
        """Returns whether features are computed and stored in fp32."""
        return self.context.workspace.is_exact(self.context.config)

    @torch.inference_mode()
    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Returns logits from cached features."""
        context = self.context
        workspace, table = context.workspace, self._features
        # Read once, at the end, so no copy stays on a GPU.
        if context.exact:
            features = workspace.exact_features(context.config, part, index)
            table, index = FeatureTable([features], context.device), np.arange(len(index))
        elif part != "pool":
            table = FeatureTable([workspace.features(context.config, part)], context.device)
        passes, method = self._passes(self.evaluated.eval()), context.method.eval()
        batches = table.batches(torch.from_numpy(index), _EVAL_BATCH)
        return torch.cat(
            [method.predict(features, passes).float().cpu() for (features,), _ in batches]
        )

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Returns discriminative parts from cached features."""
        head = self.module.eval()
        batches = self._features.batches(torch.from_numpy(index), _EVAL_BATCH)
        return torch.cat([head(features).discriminative for (features,), _ in batches])


def _undescribed(batch: Batch, made: Tensor) -> Batch:
    """Returns a batch in which nobody knows the attributes of generated features."""
    known = batch.targets.extras.get(ATTRIBUTES)
    if known is None:
        return batch
    rest = known.masked_fill(made.to(known.device)[:, None], math.nan)
    return replace(batch, targets=batch.targets.having(**{ATTRIBUTES: rest}))


def _as_it_is(features: Tensor) -> Tensor:
    return features
