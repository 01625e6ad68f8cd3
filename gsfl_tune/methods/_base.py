"""What every method offers, and what it may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.data import Annotations, Batch, Targets
from gsfl_tune.data.draws import image_draws
from gsfl_tune.losses import LossTerms, Sizes
from gsfl_tune.models import (
    AttentionSettings,
    Detections,
    Granular,
    Granularities,
    GranularitySettings,
    HeadOutput,
    Layer,
    PartSettings,
    Recurrence,
    RecurrentAttention,
)

# Name of the random numbers that stages give to methods.
STREAM = "method"


class LossOf(Protocol):
    """Computes the loss of one pass."""

    def __call__(
        self, output: HeadOutput, features: Tensor, targets: Targets, *, note: bool = True
    ) -> LossTerms:
        """Computes cross-entropy and terms.

        Args:
            output: Of the head.
            features: (B, D) unit features that the head saw.
            targets: Of the batch; what was mixed in counts by its share.
            note: Whether terms with a state take these images in. A method that passes the same
                images several times notes one of the passes.
        """


class PoolOf(Protocol):
    """Computes unit features of maps."""

    def __call__(self, maps: Tensor, *, fixed_length: bool = False) -> Tensor:
        """Computes unit features (B, D) of maps (B, C, h, w).

        Args:
            maps: Of `Passes.maps`.
            fixed_length: Whether the length that features are divided by counts as a constant in
                gradients. With the mean as pooling and a linear head, gradient times map is then
                the class activation map (Zhou et al., CVPR 2016).
        """


def _plain_cross_entropy(logits: Tensor, targets: Targets) -> Tensor:
    return functional.cross_entropy(logits, targets.labels)


def _first_draws(positions: Tensor, width: int) -> Tensor:
    return image_draws(0, STREAM, positions, width)


@dataclass(frozen=True)
class Passes:
    """Holds the passes that a method may take through the model of a stage.

    Attributes:
        features: Inputs of the stage (B, ...) to unit features (B, D). In the head stage inputs are
            unit features already.
        head: Unit features to everything that the head makes of them.
        infer: Unit features to class scores (B, C), as the exported model computes them.
        loss: Loss of a pass.
        parameters: What the optimiser of the stage trains.
        maps: Inputs of the stage to the map (B, C, h, w) in front of the pooling; ``features(x)``
            is ``pool(maps(x))``. None in the head stage, outside of training, and where the
            pooling reads more than a map, such as a class token.
        pool: Maps to unit features; None without maps.
        layer: Inputs of the stage and a number n to the map (B, C, h, w) behind the trained block
            that n others follow; n is less than the number of `Sizes.layers`. A pass ends there.
            None without maps, and for methods without `Method.layers`.
        recurrent: What proposes regions of images, in the network that `Method.recurrence` asks
            for. ``features`` are then the joint ones of all scales. None where ``maps`` is.
        parts: Maps to joint unit features (B, D) and the parts found on them, in a network with the
            detector that `Method.detector` asks for; ``features`` and ``pool`` give the same
            features. None where ``maps`` is.
        attended: Maps, and attention (B, M, h, w) in place of the network's own or None, to joint
            unit features (B, D) and the attention, in a network with that which `Method.attends`
            asks for; with its own ``features`` and ``pool`` give the same features. None where
            ``maps`` is.
        granularities: The classifiers behind blocks, in the network that `Method.granularities`
            asks for; ``features`` are then those for the head with what is added to its scores
            behind them. None where ``maps`` is.
        granular: Inputs to unit features and the scores of all of these classifiers, in one pass.
            None where ``granularities`` is.
        classifier: (C, H) weights of the head's classifier, without gradient; None where ``maps``
            is.
        cross_entropy: Scores (B, C) of a further classifier, and targets, to their cross-entropy as
            the configuration has it; a mean over the images.
        draws: (B,) positions and a width to random numbers (B, width), uniform in 0..1, on the CPU:
            a function of the epoch's seed and the position of each image.
        evaluating: Lets the model compute as in evaluation: without dropout, and with norms that
            keep their statistics. For what is looked at and not trained.
    """

    features: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], HeadOutput]
    infer: Callable[[Tensor], Tensor]
    loss: LossOf
    parameters: Sequence[nn.Parameter] = ()
    maps: Callable[[Tensor], Tensor] | None = None
    pool: PoolOf | None = None
    layer: Callable[[Tensor, int], Tensor] | None = None
    recurrent: RecurrentAttention | None = None
    parts: Callable[[Tensor], tuple[Tensor, Detections]] | None = None
    attended: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]] | None = None
    granularities: Granularities | None = None
    granular: Callable[[Tensor], Granular] | None = None
    classifier: Tensor | None = None
    cross_entropy: Callable[[Tensor, Targets], Tensor] = _plain_cross_entropy
    draws: Callable[[Tensor, int], Tensor] = _first_draws
    evaluating: Callable[[], AbstractContextManager[object]] = nullcontext


class Method(nn.Module):
    """Decides which passes a training step takes, and what is predicted.

    Its buffers and parameters are saved in checkpoints; parameters are trained with those of the
    head. Of a training, `build` is called once, `step` for every micro-batch, and `after_step`
    after every optimiser step.

    Attributes:
        views: Views of each image in a batch. In the head stage they are fixed views
            (``data.views``); without such, they are one and the same feature.
        feature_passes: Passes of a view through the backbone in a step, for its price. One made
            with settings may need fewer than its class says.
        head_passes: Passes of an image through the head in a step, for its price.
        annotated: Whether batches of the finetune stage carry annotations, where the source has
            some. The head stage reads features, on which nothing has a place.
        reads_maps: Whether the finetune stage must have `Passes.maps`; where it cannot, the method
            is refused. The head stage has none: there the method takes a single pass, and is
            priced so.
        layers: Of how many of the last trained blocks it reads the maps behind them, by
            `Passes.layer`.
        recurrence: How the network of the finetune stage sees regions of its images too, also in
            validation, the bundle and every export; None for whole images alone. Blocks that are
            not trained are then passed with gradients. It needs `reads_maps` and `needs_images`.
        needs_images: Whether the finetune stage must give it images, not cached activations.
        unmixed: Whether the finetune stage must give it images as they are: without mixup and
            CutMix, and without a teacher, who would see them before the method changes them.
        unblended: Whether its images must not be mixed with others by mixup and CutMix, as their
            annotations are not mixed; a part of what `unmixed` asks for.
        unlabelled: Images of ``data.unlabelled`` for each labelled one in batches of the finetune
            stage; `Batch.unlabelled` holds their views.
        weak_labelled: Whether the finetune stage changes labelled images weakly too (nearly the
            whole image, flipped or not), so that strong views alone have all of ``data.augment``.
        loss_follows_pass: Whether each loss is that of the pass just before it. What a pass leaves
            for terms of the loss (``training.finetune.snr``) is then of the right images.
    """

    views: ClassVar[int] = 1
    feature_passes: int = 1
    head_passes: int = 1
    annotated: ClassVar[bool] = False
    reads_maps: ClassVar[bool] = False
    layers: int = 0
    recurrence: Recurrence | None = None
    needs_images: ClassVar[bool] = False
    unmixed: ClassVar[bool] = False
    unblended: ClassVar[bool] = False
    unlabelled: int = 0
    weak_labelled: ClassVar[bool] = False
    loss_follows_pass: ClassVar[bool] = False

    def build(self, sizes: Sizes) -> None:
        """Makes the buffers and parameters that depend on sizes."""

    def passes_through(self, layers: int) -> int:
        """Counts the passes of a view through the backbone in a step, for its price.

        Args:
            layers: How many of the maps that `layers` asks for there are.
        """
        return self.feature_passes

    def operations(
        self, maps: Sequence[tuple[int, int]], images: int, extras: Mapping[str, int]
    ) -> float:
        """Counts the multiplications and additions for an image besides passes, for its price.

        Args:
            maps: Channels and positions of the maps that `layers` asks for, the last one first.
            images: B, images of a batch.
            extras: Width of every further value of images, see `gsfl_tune.losses.Sizes.extras`.

        Returns:
            Those forwards; gradients are twice as many.
        """
        return 0.0

    def detector(self, count: int, dim: int) -> PartSettings | None:
        """Returns how the network of the finetune stage finds parts on its map.

        The detector is also part of validation, the bundle and every export. It needs `reads_maps`
        and `annotated`.

        Args:
            count: P, number of annotated parts.
            dim: D of the features.

        Returns:
            None for a network without one.
        """
        return None

    def attends(self, dim: int) -> AttentionSettings | None:
        """Returns how the network of the finetune stage attends to its map.

        The attention is also part of validation, the bundle and every export. It needs
        `reads_maps`.

        Args:
            dim: D of the features.

        Returns:
            None for a network without it.
        """
        return None

    def granularities(
        self, layers: Sequence[Layer], class_count: int
    ) -> GranularitySettings | None:
        """Returns the classifiers behind blocks whose scores the finetune stage's network adds.

        They are also part of validation, the bundle and every export. They need `reads_maps`.

        Args:
            layers: The maps that `layers` asks for, the last block's first; at least one.
            class_count: C.

        Returns:
            None for a network whose head alone predicts.
        """
        return None

    def prepared(self, annotations: Annotations, side: int) -> Annotations:
        """Returns annotations in the form in which views move them; called once a stage.

        Args:
            annotations: Of all images of the pool, in pixels of their squares.
            side: Side of the squares in pixels.
        """
        return annotations

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of a micro-batch.

        Args:
            batch: With as many views as `views` says.
            passes: Through the model that is trained.

        Returns:
            Means over the images of the batch. The stage computes gradients and updates.
        """
        raise NotImplementedError

    def predict(self, inputs: Tensor, passes: Passes) -> Tensor:
        """Computes class scores (B, C) of un-augmented inputs, in eval mode.

        The exported model is backbone, pooling and head: a method that predicts otherwise cannot be
        exported, and `gsfl_tune.testing.check_method` says so.

        Args:
            inputs: Of the stage.
            passes: Through the model that is validated.
        """
        return passes.infer(passes.features(inputs))

    def epoch_metrics(self, logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
        """Computes further numbers after an epoch; records show them as ``method/NAME``.

        Args:
            logits: (N, C) predicted scores of the validation images. Not to be changed.
            labels: (N,) their classes.

        Returns:
            Numbers by name, of these predictions or of the state. Those that are not finite are not
            recorded.
        """
        return {}

    def sums(self) -> list[Tensor]:
        """Returns what was noted since the last step: float32 tensors that ranks add up."""
        return []

    def after_step(self) -> None:
        """Changes the state by what was noted, and forgets it."""


def single_pass(batch: Batch, passes: Passes) -> LossTerms:
    """Computes the loss of one pass of the only view."""
    features = passes.features(batch.inputs)
    return passes.loss(passes.head(features), features, batch.targets)
