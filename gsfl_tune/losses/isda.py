"""Implicit semantic data augmentation.

Source: Wang et al., "Implicit Semantic Data Augmentation for Deep Networks", NeurIPS 2019 (and
"Regularizing Deep Networks with Semantic Data Augmentation", TPAMI 2021).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes


class Isda(LossTerm):
    """Computes the rise of the expected cross-entropy when features vary as in their class.

    Features are modelled as draws from N(d, lambda S_y) with the covariance S_y of their class.
    The expected cross-entropy over all draws is at most that of the scores

        z_j + lambda / 2 (w_j - w_y)^T S_y (w_j - w_y)

    with the rows w of the classifier. The term is the cross-entropy of these minus that of z: at
    weight 1 the whole loss is the paper's. lambda grows linearly from 0 to ``strength``. S_y runs
    over all images seen so far, mean and covariance by Chan's rule; without gradient.

    Args:
        strength: lambda at the end of the training.
        covariance: ``diagonal`` keeps variances, C x H numbers; ``full`` C x H x H.
    """

    any_head = True
    count: Tensor
    mean: Tensor
    spread: Tensor
    pending_count: Tensor
    pending_sum: Tensor
    pending_square: Tensor

    def __init__(
        self, strength: float, covariance: Literal["diagonal", "full"] = "diagonal"
    ) -> None:
        super().__init__()
        self.strength = strength
        self.covariance = covariance

    def build(self, sizes: Sizes) -> None:
        """Makes the running moments.

        Attributes (buffers):
            count: (C,) images seen of each class.
            mean: (C, H) their means.
            spread: (C, H) or (C, H, H) sums of (products of) differences from the mean.
        """
        classes, latent = sizes.class_count, sizes.latent_dim
        shape = (classes, latent) if self.covariance == "diagonal" else (classes, latent, latent)
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, latent))
        self.register_buffer("spread", torch.zeros(shape))
        self.register_buffer("pending_count", torch.zeros(classes), persistent=False)
        self.register_buffer("pending_sum", torch.zeros(classes, latent), persistent=False)
        self.register_buffer("pending_square", torch.zeros(shape), persistent=False)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term, and stores the moments of the batch."""
        if self.training:
            self._note(batch.discriminative.detach(), batch.labels)
        ratio = 0.5 * self.strength * batch.progress
        raised = batch.logits + ratio * self._forms(batch.classifier, batch.labels)
        return batch.cross_entropy(raised) - batch.cross_entropy(batch.logits)

    def _forms(self, w: Tensor, y: Tensor) -> Tensor:
        """(w_j - w_y)^T S_y (w_j - w_y) of every image and class j, (B, C)."""
        w = w.float() if w.dtype in (torch.float16, torch.bfloat16) else w
        divisor = self.count.clamp(min=1)
        if self.covariance == "diagonal":
            variance = (self.spread / divisor[:, None])[y].to(w.dtype)
            own = w[y]
            cross = (variance * own) @ w.T
            return variance @ w.square().T - 2 * cross + (variance * own.square()).sum(1)[:, None]
        classes, place = torch.unique(y, return_inverse=True)
        matrices = (self.spread[classes] / divisor[classes, None, None]).to(w.dtype)
        apart = w[None] - w[classes][:, None]
        return ((apart @ matrices) * apart).sum(2)[place]

    def _note(self, d: Tensor, y: Tensor) -> None:
        # About the running mean: numbers stay small, and their squares exact.
        apart = d.to(self.mean.dtype) - self.mean[y]
        self.pending_count.index_add_(0, y, apart.new_ones(len(y)))
        self.pending_sum.index_add_(0, y, apart)
        if self.covariance == "diagonal":
            self.pending_square.index_add_(0, y, apart.square())
            return
        for label in torch.unique(y).tolist():
            own = apart[y == label]
            self.pending_square[label].addmm_(own.T, own)

    def sums(self) -> list[Tensor]:
        """Returns the stored moments about the running means."""
        return [self.pending_count, self.pending_sum, self.pending_square]

    @torch.no_grad()
    def after_step(self) -> None:
        """Merges the stored moments into the running ones."""
        new, total = self.pending_count, self.count + self.pending_count
        share = (new / total.clamp(min=1))[:, None]
        shift = self.pending_sum / new.clamp(min=1)[:, None]
        # Squares about the new mean: the old sum, plus new squares about the old mean, minus the
        # correction for the shift of the mean.
        moved = share * shift
        if self.covariance == "diagonal":
            self.spread += self.pending_square - total[:, None] * moved.square()
        else:
            outer = moved[:, :, None] * moved[:, None, :]
            self.spread += self.pending_square - total[:, None, None] * outer
        self.mean += moved
        self.count.copy_(total)
        for tensor in self.sums():
            tensor.zero_()
