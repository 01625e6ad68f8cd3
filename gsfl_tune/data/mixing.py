"""Mixes images of a batch, and says which labels they have then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


@dataclass(frozen=True)
class Mixed:
    """A batch, mixed or not.

    Attributes:
        inputs: As those that were mixed.
        labels: (B,) labels of the larger part of each.
        others: (B,) labels of the smaller part; None where nothing was mixed in.
        share: Of the larger part, one half to 1; the same for the whole batch.
    """

    inputs: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Mixing:
    """Mixup and CutMix.

    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
    2019. Where both are on, each takes every other batch, at random. What is mixed is what a stage
    reads: images, or activations and features of a frozen part (manifold mixup of Verma et al.,
    ICML 2019).

    Attributes:
        mixup: alpha of the Beta distribution of shares; 0 is off.
        cutmix: alpha of the area of the rectangle that comes from another image; 0 is off.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, inputs: Tensor, labels: Tensor, streams: Streams) -> Mixed:
        """Mixes every image of a batch with another one of it.

        Args:
            inputs: (B, ...); CutMix needs (B, C, h, w).
            labels: (B,).
            streams: Of the epoch; streams of its own, which every batch goes on with.
        """
        if self.mixup <= 0 and self.cutmix <= 0:
            return Mixed(inputs, labels)
        generator = streams("mixing")
        draws = torch.rand(3, generator=generator).tolist()
        # numpy draws from Beta; torch has no generator for it.
        beta = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        cut = self.cutmix > 0 and (self.mixup <= 0 or draws[0] < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(beta.beta(alpha, alpha))
        share = max(share, 1 - share)
        if cut:
            mixed, share = _cut(inputs, inputs[order], share, draws[1], draws[2])
        else:
            mixed = share * inputs + (1 - share) * inputs[order]
        return Mixed(mixed, labels, labels[order], share)


def _cut(
    inputs: Tensor, others: Tensor, share: float, across: float, down: float
) -> tuple[Tensor, float]:
    """Puts a rectangle of other images in; the share is that of the pixels that stay."""
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
