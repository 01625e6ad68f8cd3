"""The state that a training shares with its stages and batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor, device

from gsfl_tune.data.batch_share import WHOLE_BATCH, BatchShare
from gsfl_tune.experiment.config import Config
from gsfl_tune.losses import Loss
from gsfl_tune.losses.distill import TEACHER
from gsfl_tune.methods import Method
from gsfl_tune.models import (
    Backbone,
    BilinearAttention,
    Granularities,
    Network,
    PartDetector,
    PlainHead,
    RecurrentAttention,
    map_shape,
)
from gsfl_tune.run.epochs import PRECISION
from gsfl_tune.training.caches.teacher import Teacher
from gsfl_tune.training.layers import method_layers
from gsfl_tune.training.process_group import Ranks
from gsfl_tune.training.rate_sweep import RateSweep
from gsfl_tune.training.seeds import named_seed
from gsfl_tune.training.timeline import StageName, StageSpec, Timeline, stage_spec
from gsfl_tune.training.workspace import Workspace


@dataclass
class StageContext:
    """Holds the state that a training shares with its stages and batches.

    Attributes:
        config: The configuration.
        seed: Of the weights.
        workspace: Data and caches of this node.
        device: Device of the training.
        autocast: Whether trained blocks compute in bf16.
        frozen_bf16: Whether frozen blocks in front of trained ones compute in bf16.
        head: The head, on the device; all stages train this one.
        loss: The loss with its state, on the device.
        method: The training method, which defines the passes of a step; with its state, on the
            device.
        groups: (C,) int64 group of every class; None without a GSFL head.
        train_positions: (N,) positions of the training images in the pool, on the CPU.
        labels: Labels of all images of the pool, on the device.
        total_epochs: Epochs over all stages.
        known_of_images: (N, ...) further values of all images of the pool, on the device, that
            terms of the loss learn; see `gsfl_tune.losses.LossInput.extras`.
        part_names: Names of the annotated parts that the network learns to find; empty for methods
            that find none.
        teacher: The trained model whose scores are learnt too; None without distillation.
        pieces: Number of parts in which a batch is trained, one after the other, to save memory.
        backbone_trained: Whether an earlier stage has trained the backbone, so that nothing cached
            of the pretrained one belongs to it.
        epoch: Number of epochs trained so far.
        ranks: The processes that train together with this one; None if it trains alone.
        sweep: Decides the learning rates of a range test, in place of the schedule.
        exact: Whether answers are computed as the exported network does, see `made_exact`.
    """

    config: Config
    seed: int
    workspace: Workspace
    device: device
    autocast: bool
    frozen_bf16: bool
    head: PlainHead
    loss: Loss
    method: Method
    groups: np.ndarray | None
    train_positions: Tensor
    labels: Tensor
    total_epochs: int
    known_of_images: Mapping[str, Tensor] = field(default_factory=dict)
    part_names: Sequence[str] = ()
    teacher: Teacher | None = None
    pieces: int = 1
    backbone_trained: bool = False
    epoch: int = 0
    ranks: Ranks | None = None
    sweep: RateSweep | None = None
    exact: bool = False

    @property
    def share(self) -> BatchShare:
        """Returns this process' part of every batch."""
        return WHOLE_BATCH if self.ranks is None else self.ranks.share

    @property
    def precision(self) -> dict[str, str]:
        """Returns what trained and frozen blocks compute in, for a checkpoint."""
        names = {True: "bf16", False: "fp32"}
        return {"trained": names[self.autocast], "frozen": names[self.frozen_bf16]}

    def told(self, name: StageName) -> dict[str, str]:
        """Returns what the record of an epoch says: the precision of a stage's trained backbone.

        Args:
            name: Name of the stage.
        """
        if not stage_spec(name).trains_backbone:
            return {}
        trained, frozen = self.precision.values()
        partial = self.device.type == "cpu" and self.config.training.finetune.blocks != "all"
        differs = partial and frozen != trained
        return {PRECISION: f"{trained} (frozen blocks {frozen})" if differs else trained}

    def compute_in(self, precision: Mapping[str, str] | None) -> None:
        """Takes the precision of a checkpoint: this node may have measured another as the faster.

        A training whose epochs differ in precision, or whose answers are computed in another one
        than was validated, is not the training that its log describes.

        Args:
            precision: As `precision` returns it; None, in checkpoints of earlier versions, changes
                nothing.
        """
        if precision is not None:
            self.autocast = precision["trained"] == "bf16"
            self.frozen_bf16 = precision["frozen"] == "bf16"

    def made_exact(self) -> StageContext:
        """Returns the context in which answers are those of a bundle.

        They are in fp32, from values that are not stored in less.
        """
        return replace(self, autocast=False, frozen_bf16=False, exact=True)

    def random_extras(self, inputs: Tensor) -> dict[str, Tensor]:
        """Makes the extras without which a term refuses a batch of random inputs (B, ...)."""
        if self.teacher is None:
            return {}
        return {TEACHER: inputs.new_zeros(len(inputs), self.head.class_count)}

    def of_stage(self, spec: StageSpec) -> StageContext:
        """Returns the context for a stage, with the configuration that its code reads.

        Args:
            spec: Row of the stage; this context is that of the training.
        """
        trained = Timeline.of(self.config).backbone_trained_before(spec.name)
        return replace(self, config=spec.seen_by(self.config), backbone_trained=trained)

    def network(self, backbone: Backbone) -> Network:
        """Joins a backbone with this training's projection, pooling and head."""
        extractor = self.workspace.extractor(self.config)
        stage = self.config.training.finetune
        if stage.epochs and stage.snr:
            own = named_seed(self.seed, "restitution")
            backbone.restitute(stage.blocks, self.config.data.image_size, seed=own)
        projection, pooling = copy.deepcopy(extractor.projection), extractor.pooling()
        recurrent, parts, attention = None, None, None
        # Each seed of a training begins with other weights, as its head does.
        seed = named_seed(self.seed, "method")
        settings = self.method.detector(len(self.part_names), self.head.feature_dim)
        attends = self.method.attends(self.head.feature_dim)
        asked = self.method.recurrence is not None or settings is not None or attends is not None
        if stage.epochs and asked:
            channels, _, _ = map_shape(backbone.name, self.config.data.image_size, backbone.reads)
            if self.method.recurrence is not None:
                recurrent = RecurrentAttention(channels, self.method.recurrence, seed)
            if settings is not None:
                parts = PartDetector(channels, settings, seed)
            if attends is not None:
                attention = BilinearAttention(channels, attends, seed)
        further = recurrent, parts, attention, self._granularities()
        return Network(backbone, projection, pooling, self.head, *further)

    def _granularities(self) -> Granularities | None:
        layers = method_layers(self.config, self.method)
        if not layers:
            return None
        settings = self.method.granularities(layers, self.head.class_count)
        return (
            None if settings is None else Granularities(settings, named_seed(self.seed, "method"))
        )
