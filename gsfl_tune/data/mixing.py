"""Mixes the images of a batch and their targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


@dataclass(frozen=True)
class Mixing:
    """Applies mixup and CutMix.

    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
    2019. If both are on, each gets half of the batches, at random. Mixed are the inputs of a stage:
    images, or activations and features of a frozen part (manifold mixup of Verma et al., ICML
    2019).

    The share that stays has a Beta(alpha, alpha) distribution, and labels count by the exact area
    of a rectangle. If the rectangle takes more than half of an image, the image that it comes from
    is the first of the two: in the result, the first always has the larger part. Unlike in the code
    of CutMix' authors, rectangles do not reach over edges, so that areas are those of the paper.

    Attributes:
        mixup: alpha of the Beta distribution of shares; 0 is off.
        cutmix: alpha of the area of the rectangle that comes from another image; 0 is off.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, batch: Batch, streams: Streams) -> Batch:
        """Mixes every image of a batch with another one, in all views alike.

        Args:
            batch: Batch of any views; CutMix needs views (B, C, h, w).
            streams: Random streams of the epoch; the one for mixing continues from batch to batch.
        """
        if self.mixup <= 0 and self.cutmix <= 0:
            return batch
        generator = streams("mixing")
        draws = torch.rand(3, generator=generator).tolist()
        # numpy draws from Beta; torch's function takes no generator.
        beta = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        labels = batch.labels
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        cut = self.cutmix > 0 and (self.mixup <= 0 or draws[0] < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(beta.beta(alpha, alpha))
        if not cut:  # It is the same with exchanged images.
            share = max(share, 1 - share)
        views, kept = [], share
        for view in batch.views:
            if cut:
                mixed, kept = _cut(view, view[order], share, draws[1], draws[2])
            else:
                mixed = share * view + (1 - share) * view[order]
            views.append(mixed)
        targets = replace(
            batch.targets,
            soft=_joined(batch.targets.soft, order, kept),
            weights=_joined(batch.targets.weights, order, kept),
            others=labels[order],
            kept=kept,
            extras_of_others={name: each[order] for name, each in batch.targets.extras.items()},
        )
        result = replace(batch, views=tuple(views), targets=targets)
        return result if kept >= 0.5 else _exchanged(result, order)


def _exchanged(batch: Batch, order: Tensor) -> Batch:
    """Names the images of the rectangles first."""
    targets, annotations = batch.targets, batch.annotations
    assert targets.others is not None
    targets = replace(
        targets,
        labels=targets.others,
        others=targets.labels,
        kept=1 - targets.kept,
        extras=targets.extras_of_others,
        extras_of_others=targets.extras,
    )
    if annotations is not None:
        annotations = tuple(each.rows(order.cpu().numpy()) for each in annotations)
    positions = batch.positions[order.to(batch.positions.device)]
    return replace(batch, targets=targets, positions=positions, annotations=annotations)


def _joined(values: Tensor | None, order: Tensor, kept: float) -> Tensor | None:
    return None if values is None else kept * values + (1 - kept) * values[order]


def _cut(
    inputs: Tensor, others: Tensor, share: float, across: float, down: float
) -> tuple[Tensor, float]:
    """Inserts a rectangle of other images; the share returned is that of the pixels kept."""
    if inputs.ndim != 4:
        raise UserError(
            "training.finetune.cutmix: found activations without height and width (those of a "
            "transformer, cached with data.views), allowed: 0, or images (data.views: 0)"
        )
    height, width = inputs.shape[2:]
    side = (1 - share) ** 0.5
    h, w = round(side * height), round(side * width)
    y, x = int(down * (height - h + 1)), int(across * (width - w + 1))
    mixed = inputs.clone(memory_format=torch.preserve_format)
    mixed[:, :, y : y + h, x : x + w] = others[:, :, y : y + h, x : x + w]
    return mixed, 1 - h * w / (height * width)
