"""The GSFL loss.

Source: Li and Monga, arXiv 2004.01817; batch means where the authors' code takes sums, and
each sample's own group centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gsfl_tune.losses.centers import ClassCenters
from gsfl_tune.losses.terms import Batch, WeightedTerm


class Output(Protocol):
    """What the loss reads of a head's output: see `gsfl_tune.models.HeadOutput`."""

    @property
    def logits(self) -> Tensor:
        """(B, C)."""

    @property
    def discriminative(self) -> Tensor:
        """(B, H)."""

    @property
    def shared(self) -> Tensor | None:
        """(B, H), None in a plain head."""

    @property
    def reconstruction(self) -> Tensor | None:
        """(B, D), None in a plain head."""


class LossTerms(NamedTuple):
    """The weighted total and its terms before weighting, all scalars of a batch mean.

    The three GSFL terms are None for a plain head; `further` holds the terms of packages.
    """

    total: Tensor
    cross_entropy: Tensor
    reconstruction: Tensor | None
    class_center: Tensor | None
    shared_center: Tensor | None
    further: Mapping[str, Tensor] = MappingProxyType({})

    def detached(self) -> dict[str, Tensor]:
        """Total and terms by name (total as ``loss``), detached, without those that are None."""
        named = {"loss": self.total, **self._asdict(), **self.further}
        del named["total"], named["further"]
        return {k: v.detach() for k, v in named.items() if v is not None}


@dataclass(frozen=True)
class GsflLoss:
    """Cross-entropy + w_r reconstruction + w_c class centre + w_s shared centre.

    Reconstruction |r / scale - f|^2, class centre |d - c_y|^2, shared centre |s - m_g(y)|^2 with
    m_g the mean of the class centres of group g: squared norms, summed over their dimensions and
    averaged over the batch, in float32 even under autocast. Calling it changes no state.

    Attributes:
        reconstruction: w_r.
        class_center: w_c.
        shared_center: w_s.
        label_smoothing: Of the cross-entropy.
        reconstruction_target: ``keep`` lets the gradient flow into the target f too.
        feature_scale: Scale of the features that the encoders see.
        class_weights: (C,) weight of the cross-entropy of images of each class; their mean over
            the training images should be 1. None weighs all alike.
        further: Terms of packages, with their weights.
    """

    reconstruction: float
    class_center: float
    shared_center: float
    label_smoothing: float = 0.0
    reconstruction_target: Literal["keep", "detach"] = "keep"
    feature_scale: float = 1.0
    further: tuple[WeightedTerm, ...] = ()
    class_weights: Tensor | None = None

    def __call__(
        self, output: Output, f: Tensor, y: Tensor, centers: ClassCenters | None = None
    ) -> LossTerms:
        """Loss of a batch.

        Args:
            output: Of the head. A plain head's has no shared part: cross-entropy only.
            f: (B, D) unit features.
            y: (B,) labels.
            centers: Class centres; a plain head needs none.
        """
        logits = _full(output.logits)
        cross_entropy = self._cross_entropy(logits, y)
        if output.shared is None or output.reconstruction is None:
            return LossTerms(cross_entropy, cross_entropy, None, None, None)
        if centers is None:
            raise ValueError("the GSFL loss needs class centres")
        target = f.detach() if self.reconstruction_target == "detach" else f
        terms = (
            _squared(_full(output.reconstruction) / self.feature_scale, _full(target)),
            _squared(_full(output.discriminative), centers.centers[y]),
            _squared(_full(output.shared), centers.group_means()[centers.groups[y]]),
        )
        total = cross_entropy
        weights = (self.reconstruction, self.class_center, self.shared_center)
        for weight, term in zip(weights, terms, strict=True):
            if weight:  # a term without weight must not spoil the total when it overflows
                total = total + weight * term
        further = self._further(output, f, y, centers)
        for each in self.further:
            total = total + each.weight * further[each.name]
        return LossTerms(total, cross_entropy, *terms, further)

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        # Not `weight=` of torch: it divides by the weights of the batch, so that an image would
        # count more or less with the company it is in, and pieces of a batch would not add up.
        each = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing, reduction="none")
        return (each * self.class_weights[y]).mean()

    def _further(
        self, output: Output, f: Tensor, y: Tensor, centers: ClassCenters
    ) -> dict[str, Tensor]:
        if not self.further or output.shared is None or output.reconstruction is None:
            return {}
        batch = Batch(
            features=_full(f),
            discriminative=_full(output.discriminative),
            shared=_full(output.shared),
            reconstruction=_full(output.reconstruction) / self.feature_scale,
            logits=_full(output.logits),
            labels=y,
            groups=centers.groups[y],
            class_centers=centers.centers,
            group_means=centers.group_means(),
        )
        return {each.name: each(batch) for each in self.further}


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of rows, averaged over the batch."""
    return F.mse_loss(a, b, reduction="sum") / len(a)
