"""The interface of loss terms, and the inputs that they receive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Holds the sizes that a term is built for.

    Attributes:
        feature_dim: D of the unit features.
        latent_dim: H of the discriminative and shared parts.
        class_count: C.
        groups: (C,) int64 group of every class; None with a head that needs none.
        layers: Channels of the maps behind the trained blocks, the last block first, for methods
            of training that read them; empty for others and without a finetune stage.
        extras: Columns of each of `LossInput.extras` that this training has.
    """

    feature_dim: int
    latent_dim: int
    class_count: int
    groups: Tensor | None = None
    layers: tuple[int, ...] = ()
    extras: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """Holds the values that only a GSFL head adds to a batch; float32, even under autocast.

    Attributes:
        shared: (B, H) shared parts s.
        reconstruction: (B, D) reconstructions of f.
        groups: (B,) groups of the labels.
        class_centers: (C, H) centres of all classes, without gradient.
        group_means: (K, H) means of the class centres of all groups.
    """

    shared: Tensor
    reconstruction: Tensor
    groups: Tensor
    class_centers: Tensor
    group_means: Tensor


@dataclass(frozen=True)
class LossInput:
    """Holds the inputs of a loss term for a batch; float32, even under autocast.

    Attributes:
        features: (B, D) unit features f.
        discriminative: (B, H) discriminative parts d.
        logits: (B, C) class scores, linear in d.
        labels: (B,) classes.
        classifier: (C, H) weights of the classifier.
        cross_entropy: Cross-entropy of scores (B, C), with the smoothing and the class weights of
            the configuration.
        progress: Share of the training that is done, 0 to 1.
        gsfl: Values of a GSFL head; None with a plain head.
        extras: What else is known of the images, by name; a term reads what it needs. The names are
            those of whoever provides the values: the targets of the batch (``teacher``,
            ``attributes``), or the last pass through the model (``restituted``).
    """

    features: Tensor
    discriminative: Tensor
    logits: Tensor
    labels: Tensor
    classifier: Tensor
    cross_entropy: Callable[[Tensor], Tensor]
    progress: float = 0.0
    gsfl: Shared | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shared(self) -> Tensor:
        """Returns the (B, H) shared parts s."""
        return self._gsfl().shared

    @property
    def reconstruction(self) -> Tensor:
        """Returns the (B, D) reconstructions of f."""
        return self._gsfl().reconstruction

    @property
    def groups(self) -> Tensor:
        """Returns the (B,) groups of the labels."""
        return self._gsfl().groups

    @property
    def class_centers(self) -> Tensor:
        """Returns the (C, H) centres of all classes, without gradient."""
        return self._gsfl().class_centers

    @property
    def group_means(self) -> Tensor:
        """Returns the (K, H) means of the class centres of all groups."""
        return self._gsfl().group_means

    def _gsfl(self) -> Shared:
        if self.gsfl is None:
            raise ValueError("a plain head has no shared part: the term must not be used with it")
        return self.gsfl


@dataclass(frozen=True)
class Start:
    """Gives a term access to the training images before the first epoch.

    Attributes:
        parts: Computes the discriminative parts (N, H) of the training images with the initial
            weights, and their labels (N,).
    """

    parts: Callable[[], tuple[Tensor, Tensor]]


class LossTerm(nn.Module):
    """Adds a term to the cross-entropy, and holds the term's state.

    Its buffers and parameters are saved in checkpoints; parameters are trained with those of the
    head. Of a training, `build` is called once, `start` before the first epoch, the term itself
    for every micro-batch, and `after_step` after every optimiser step.

    Attributes:
        any_head: Whether the term also works with a plain head. A term that reads values of a GSFL
            head leaves it False, so that the control does not change.
    """

    any_head: bool = False

    def build(self, sizes: Sizes) -> None:
        """Makes the buffers and parameters that depend on sizes."""

    def start(self, start: Start) -> None:
        """Begins a training; not called when a training resumes from a checkpoint."""

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term before weighting: a scalar, averaged over the images of the batch.

        Values that `after_step` needs are stored here, in training mode only.
        """
        raise NotImplementedError

    def sums(self) -> list[Tensor]:
        """Returns what was stored since the last step: float32 tensors that ranks sum in place."""
        return []

    def after_step(self) -> None:
        """Updates the state with the stored values, and clears them."""

    def offers(self, labels: Tensor) -> Mapping[str, Tensor]:
        """Returns what other terms read of this one's state, for a batch with these labels.

        Args:
            labels: (B,) classes.

        Returns:
            Fields of `Shared` by name: all but those that come from the head.
        """
        return {}

    def load_earlier(self, state: Mapping[str, Any]) -> None:
        """Restores from a checkpoint of a version that kept no states of terms.

        Args:
            state: The checkpoint. Terms that are younger than such checkpoints ignore it.
        """


@dataclass(frozen=True)
class Weighted:
    """Holds a term and its weight; with weight 0 it is recorded but not trained on."""

    weight: float
    term: LossTerm


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Computes the squared distance of rows, averaged over the batch."""
    return torch.nn.functional.mse_loss(a, b, reduction="sum") / len(a)
