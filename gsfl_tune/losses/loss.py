"""The loss of a training: cross-entropy and weighted terms."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.losses._base import LossInput, LossTerm, Shared, Sizes, Start, Weighted
from gsfl_tune.losses.cross_entropy import cross_entropy_each
from gsfl_tune.plugins import PluginError

T = TypeVar("T", bound=LossTerm)


class Output(Protocol):
    """Names what the loss reads of a head's output, see `gsfl_tune.models.HeadOutput`."""

    @property
    def logits(self) -> Tensor:
        """Returns the logits (B, C)."""

    @property
    def discriminative(self) -> Tensor:
        """Returns the discriminative parts (B, H)."""

    @property
    def shared(self) -> Tensor | None:
        """Returns the shared parts (B, H); None for a plain head."""

    @property
    def reconstruction(self) -> Tensor | None:
        """Returns the reconstructions (B, D); None for a plain head."""


class LossTerms(NamedTuple):
    """Holds the weighted total and the terms before weighting; all scalars of a batch mean.

    Attributes:
        total: What is minimised.
        cross_entropy: With smoothing and class weights.
        terms: The others by name, in their order.
    """

    total: Tensor
    cross_entropy: Tensor
    terms: Mapping[str, Tensor] = MappingProxyType({})

    def blended(self, other: LossTerms, share: float) -> LossTerms:
        """Computes share * self + (1 - share) * other, term by term."""

        def mean(a: Tensor, b: Tensor) -> Tensor:
            return share * a + (1 - share) * b

        return LossTerms(
            mean(self.total, other.total),
            mean(self.cross_entropy, other.cross_entropy),
            {name: mean(value, other.terms[name]) for name, value in self.terms.items()},
        )

    def plus(self, name: str, weight: float, value: Tensor) -> LossTerms:
        """Adds a weighted term; a term with weight 0 is recorded but not trained on.

        Args:
            name: Name of the term in records.
            weight: Weight of the term.
            value: A scalar, averaged over the images of the batch.
        """
        total = self.total + weight * value if weight else self.total
        return LossTerms(total, self.cross_entropy, {**self.terms, name: value})

    def detached(self) -> dict[str, Tensor]:
        """Returns the total (as ``loss``) and the terms by name, detached."""
        named = {"loss": self.total, "cross_entropy": self.cross_entropy, **self.terms}
        return {name: value.detach() for name, value in named.items()}


class Loss(nn.Module):
    """Computes cross-entropy plus the weighted sum of terms, in float32 even under autocast.

    Args:
        sizes: What the terms are made for.
        terms: Terms by name, in the order of their sum.
        label_smoothing: Of the cross-entropy.
        class_weights: (C,) weight of the cross-entropy of images of each class; their mean over
            the training images should be 1. None weighs all alike.
        focal: gamma of focal weights in the cross-entropy, see `cross_entropy_each`.
        shifts: (C,) what the cross-entropy adds to the scores of each class; see
            `gsfl_tune.data.sampling.log_priors`. None adds nothing.
        feature_scale: Scale of the features that the encoders see.
        seed: Of the parameters of terms: of each a function of the seed and the term's name. None
            leaves them to the global generator. With a seed, that is at another place afterwards.
    """

    class_weights: Tensor | None
    shifts: Tensor | None

    def __init__(
        self,
        sizes: Sizes,
        terms: Mapping[str, Weighted],
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        focal: float = 0.0,
        shifts: Tensor | None = None,
        feature_scale: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.weights = {name: each.weight for name, each in terms.items()}
        self.terms: dict[str, LossTerm] = {name: each.term for name, each in terms.items()}
        # Names have a prefix, as a term may be called like a method of modules.
        self.states = nn.ModuleDict({f"term_{name}": term for name, term in self.terms.items()})
        self.label_smoothing = label_smoothing
        self.focal = focal
        self.feature_scale = feature_scale
        # Not saved: they are computed from the training images.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("shifts", shifts, persistent=False)
        for name, term in self.terms.items():
            if seed is not None:
                entropy = [seed, zlib.crc32(name.encode())]
                state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
                torch.manual_seed(int(state) & (2**63 - 1))
            term.build(sizes)

    def find(self, kind: type[T]) -> T | None:
        """Returns the first term of a class, None without one."""
        return next((term for term in self.terms.values() if isinstance(term, kind)), None)

    def forward(
        self,
        output: Output,
        f: Tensor,
        y: Tensor,
        classifier: Tensor,
        *,
        progress: float = 0.0,
        soft: Tensor | None = None,
        weights: Tensor | None = None,
        extras: Mapping[str, Any] = MappingProxyType({}),
    ) -> LossTerms:
        """Computes the loss of a batch.

        Args:
            output: Output of the head.
            f: (B, D) unit features.
            y: (B,) labels.
            classifier: (C, H) weights of the classifier.
            progress: Share of the training that is done.
            soft: (B, C) probabilities that the cross-entropy takes in place of labels.
            weights: (B,) weight of each image in the cross-entropy.
            extras: What else is known of the images, see `LossInput.extras`.

        Raises:
            PluginError: If a term gives no scalar.
        """
        cross = partial(self.cross_entropy, y=y, soft=soft, weights=weights)
        batch = replace(self._batch(output, f, y, classifier, progress, cross), extras=extras)
        cross_entropy = batch.cross_entropy(batch.logits)
        total, values = cross_entropy, {}
        for name, term in self.terms.items():
            values[name] = value = term(batch)
            if not isinstance(value, Tensor) or value.ndim:
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise PluginError(f"loss term {name} gave {found}, allowed is a scalar tensor")
            if self.weights[name]:  # a term without weight must not spoil the total
                total = total + self.weights[name] * value
        return LossTerms(total, cross_entropy, values)

    def cross_entropy(
        self,
        logits: Tensor,
        y: Tensor,
        soft: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Computes the cross-entropy of scores, with smoothing, priors and weights of classes.

        Args:
            logits: (B, C) class scores.
            y: (B,) labels.
            soft: (B, C) probabilities that it takes in place of labels.
            weights: (B,) weight of each image.

        Returns:
            The mean over the images.
        """
        logits = _full(logits)
        target = y if soft is None else soft.to(logits.dtype)
        smoothing = self.label_smoothing
        if self.shifts is not None:
            logits = logits + self.shifts
        if self.class_weights is None and weights is None and not self.focal:
            return F.cross_entropy(logits, target, label_smoothing=smoothing)
        # Not `weight=` of torch, which divides by the sum of the batch's weights. An image's weight
        # would depend on its batch, and pieces of a batch would not add up.
        each = cross_entropy_each(logits, target, label_smoothing=smoothing, focal=self.focal)
        if self.class_weights is not None:
            each = each * self.class_weights[y]
        return (each if weights is None else each * weights).mean()

    def start(self, start: Start) -> None:
        """Calls `start` of all terms."""
        for term in self.terms.values():
            term.start(start)

    def sums(self) -> list[Tensor]:
        """Returns the stored values of all terms since the last step."""
        return [tensor for term in self.terms.values() for tensor in term.sums()]

    def after_step(self) -> None:
        """Lets all terms update their state."""
        for term in self.terms.values():
            term.after_step()

    def load_earlier(self, state: Mapping[str, Any]) -> None:
        """Restores terms from a checkpoint of a version that kept no states of terms."""
        for term in self.terms.values():
            term.load_earlier(state)

    def _batch(
        self,
        output: Output,
        f: Tensor,
        y: Tensor,
        classifier: Tensor,
        progress: float,
        cross_entropy: Callable[[Tensor], Tensor],
    ) -> LossInput:
        gsfl = None
        if output.shared is not None and output.reconstruction is not None:
            offered = [term.offers(y) for term in self.terms.values()]
            if any(offered):
                gsfl = Shared(
                    shared=_full(output.shared),
                    reconstruction=_full(output.reconstruction) / self.feature_scale,
                    **{name: value for each in offered for name, value in each.items()},
                )
        return LossInput(
            features=_full(f),
            discriminative=_full(output.discriminative),
            logits=_full(output.logits),
            labels=y,
            classifier=classifier,
            cross_entropy=cross_entropy,
            progress=progress,
            gsfl=gsfl,
        )


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
