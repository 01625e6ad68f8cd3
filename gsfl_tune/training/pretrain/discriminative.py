"""Invariance to what does not discriminate: pairs of images that a decoder makes.

Source: Wang et al., "On Learning Discriminative Features from Synthesized Data for Self-Supervised
Fine-Grained Visual Recognition", arXiv 2407.14676: L = L_base + alpha L_reconstruction + nu L_pair.
Its authors have published no code; docs/pretrain.md says what follows their abstract and which
choices are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.experiment.pretrain_config import DiscriminativeConfig
from gsfl_tune.training.pretrain.decoder import Decoder, decoded_size, resized
from gsfl_tune.training.pretrain.dimensions import DimensionStatistics, perturbed
from gsfl_tune.training.pretrain.gradcam import importance
from gsfl_tune.training.pretrain.joint import JointBatch

PairLoss = Callable[[Tensor, Tensor], Tensor]
"""Takes two batches of images, gives the loss of their representations."""


class Discriminative(nn.Module):
    """Finds dimensions that do not discriminate, and decodes images with other values in them.

    Args:
        channels: Size C of a representation.
        image_size: Side of the backbone's images in pixels.
        config: Section ``pretrain.discriminative``.
        computing: Makes the context in which the decoder runs, such as one of lower precision.

    Attributes:
        joint: Makes batches of several processes whole.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        config: DiscriminativeConfig,
        computing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        self.config = config
        self._computing = computing
        self.joint = JointBatch()
        self.image_size = image_size
        self.size = decoded_size(config.decoder_size, image_size)
        self.decoder = Decoder(channels, self.size, config.decoder_width)
        self.statistics = DimensionStatistics(channels, config.memory)

    def observe(
        self, vectors: Sequence[Tensor], maps: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> None:
        """Takes a batch into the statistics of the dimensions.

        Args:
            vectors: Representations (B, C) of each view, of the whole batch.
            maps: Maps (b, C, h, w) of this process' images, whose means its representations are.
            gradients: Of the loss by the maps.
        """
        parts = [
            importance(each, gradient, self.config.importance)
            for each, gradient in zip(maps, gradients, strict=True)
        ]
        mean = self.joint.summed(self.joint.part_of_mean(torch.stack(parts).mean(0)))
        self.statistics.observe(torch.cat(list(vectors)), mean)

    @property
    def chosen(self) -> Tensor:
        """Returns which dimensions do not discriminate, (C,) bool."""
        return self.statistics.not_discriminative(self.config.fraction, self.config.combine)

    def terms(
        self,
        vectors: Tensor,
        images: Tensor,
        generator: torch.Generator,
        pair_loss: PairLoss | None,
    ) -> dict[str, Tensor]:
        """Computes the terms of a batch, without their weights.

        The decoder learns from the reconstruction alone: the images of a pair are given to the
        backbone without their gradient. Of the reconstruction's gradient alpha times reaches the
        backbone, and all of it the decoder, which learns with ``alpha: 0`` too.

        Args:
            vectors: Representations (b, C) of one view, of this process' images.
            images: That view, (b, 3, s, s), normalised.
            generator: Source of the perturbation.
            pair_loss: Loss of a pair; None before the warm-up is over.

        Returns:
            ``reconstruction`` and, with a loss of pairs, ``pair``: this process' parts.
        """
        config = self.config
        given = scaled_gradient(vectors, config.reconstruction_weight)
        target = resized(images, self.size)
        original = self._decoded(given)
        reconstruction = functional.mse_loss(original, target)
        found: dict[str, Tensor] = {}
        if pair_loss is not None or config.reconstruct == "both":
            deviation = self.statistics.variance.sqrt()
            # An image may get values of one that another process has.
            rows = self.joint.rows(given)
            changed = self.joint.own(perturbed(rows, self.chosen, deviation, config, generator))
            with torch.set_grad_enabled(config.reconstruct == "both"):
                other = self._decoded(changed)
            if config.reconstruct == "both":
                again = functional.mse_loss(other, target)
                reconstruction = 0.5 * (reconstruction + again)
            if pair_loss is not None:
                one, two = (resized(each.detach(), self.image_size) for each in (original, other))
                found["pair"] = pair_loss(one, two)
        return {"reconstruction": self.joint.part_of_mean(reconstruction), **found}

    def decoded(self, vectors: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decodes representations (B, C), and the same ones perturbed: images (B, 3, t, t).

        Args:
            vectors: The representations.
            generator: Source of the perturbation.
        """
        deviation = self.statistics.variance.sqrt()
        changed = perturbed(vectors, self.chosen, deviation, self.config, generator)
        return self._decoded(vectors), self._decoded(changed)

    def _decoded(self, vectors: Tensor) -> Tensor:
        with self._computing():
            images: Tensor = self.decoder(vectors)
        return images.float()


def scaled_gradient(values: Tensor, factor: float) -> Tensor:
    """Returns the same values, whose gradient is multiplied by a factor on its way back."""
    still = values.detach()
    return still if factor == 0 else still + factor * (values - still)
