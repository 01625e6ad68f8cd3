"""Attributes that are read off the map: each attends to places of its own, and is contrasted.

Source: Lei et al., "High-Discriminative Attribute Feature Learning for Generalized Zero-Shot
Learning" (HDAFL), arXiv 2404.04953, whose abstract names convolution kernels that learn regions of
attributes, and a contrastive loss. The equations here are choices of this project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms, Sizes
from gsfl_tune.losses.attribute_contrast import attribute_contrast
from gsfl_tune.losses.attributes import ATTRIBUTES, attribute_error
from gsfl_tune.methods._base import Method, Passes, single_pass


class AttributeAttention(Method):
    """Adds the losses of attributes, each of which attends to places of the map.

    With the attributes that the map predicts,

        loss = L(image) + weight * BCE(attributes) + contrast * C(embeddings)

    BCE is that of `gsfl_tune.losses.Attributes`, C is `attribute_contrast`. Both are gradients for
    the trained blocks; the head and prediction are those of one pass, and a bundle is a plain
    network.

    The paper recognises classes without images, by attributes of classes; here the head classifies,
    as every class has images. The paper's transformer over attributes is left out.

    Args:
        weight: Of the cross-entropy of attributes.
        contrast: Weight of the contrast.
        temperature: Of the contrast.
        width: E, size of the embedding of an attribute.
        absent: Whether images that both lack an attribute are alike in the contrast.
    """

    reads_maps = True
    # For the channels of the map in front of the pooling.
    layers = 1

    def __init__(
        self, weight: float, contrast: float, temperature: float, width: int, absent: bool
    ) -> None:
        super().__init__()
        self.weight = weight
        self.contrast = contrast
        self.temperature = temperature
        self.width = width
        self.absent = absent
        self.attended: AttendedAttributes | None = None

    def build(self, sizes: Sizes) -> None:
        """Makes what attends; nothing without a finetune stage, which has maps.

        Raises:
            ValueError: If there are no attributes.
        """
        if not sizes.layers:
            return
        count = sizes.extras.get(ATTRIBUTES, 0)
        if not count:
            raise ValueError("attribute_attention needs images with attributes")
        self.attended = AttendedAttributes(sizes.layers[0], count, self.width)

    def operations(
        self, maps: Sequence[tuple[int, int]], images: int, extras: Mapping[str, int]
    ) -> float:
        """Counts those of attention, embeddings and contrast.

        Mixed images, whose losses are computed twice, count as others.
        """
        if not maps:
            return 0.0
        channels, places = maps[0]
        count = extras.get(ATTRIBUTES, 0)
        attended = places * (count * channels + self.width * (channels + count))
        contrast = count * self.width * (images + count) if self.contrast else 0
        return 2.0 * (attended + contrast)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of images and of their attributes; in the head stage of features."""
        if passes.maps is None or passes.pool is None or self.attended is None:
            return single_pass(batch, passes)
        targets = batch.targets
        maps = passes.maps(batch.inputs)
        features = passes.pool(maps)
        terms = passes.loss(passes.head(features), features, targets)
        # Of half precision under autocast, which ends with the model.
        scores, embeddings = self.attended(maps.float() if maps.element_size() < 4 else maps)
        # Inputs that are not images, to test the memory, have none: all are unknown.
        own = targets.extras.get(ATTRIBUTES, torch.full_like(scores, math.nan))
        error, contrast = self._losses(scores, embeddings, own)
        others = targets.extras_of_others.get(ATTRIBUTES)
        if targets.others is not None and others is not None:
            theirs = self._losses(scores, embeddings, others)
            error = targets.kept * error + (1 - targets.kept) * theirs[0]
            contrast = targets.kept * contrast + (1 - targets.kept) * theirs[1]
        terms = terms.plus("attribute_error", self.weight, error)
        return terms.plus("attribute_contrast", self.contrast, contrast)

    def _losses(
        self, scores: Tensor, embeddings: Tensor, attributes: Tensor
    ) -> tuple[Tensor, Tensor]:
        error = attribute_error(scores, attributes)
        if not self.contrast:  # is dear
            return error, error.new_zeros(())
        return error, attribute_contrast(
            embeddings, attributes, self.temperature, absent=self.absent
        )


class AttendedAttributes(nn.Module):
    """Predicts attributes from the places of a map that each of them attends to.

    With the map's position x_l, its channels normalised to mean 0 and deviation 1,

        a_lk = softmax over l of (q_k' x_l / sqrt(C))        e_k = u_k * sum_l a_lk (V x_l + v)

    and score k is w_k' e_k + b_k. The kernels q start at zero, where every attribute has the mean
    of the map. u, multiplied elementwise, lets attributes that are seen at the same place have
    embeddings that differ.

    Args:
        channels: C, of the map.
        count: A, number of attributes.
        width: E.
    """

    def __init__(self, channels: int, count: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(count, channels))
        self.values = nn.Linear(channels, width)
        self.gains = nn.Parameter(torch.randn(count, width))
        self.weight = nn.Parameter(torch.randn(count, width) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores (B, A), before the sigmoid, and embeddings (B, A, E).

        Args:
            maps: (B, C, h, w).
        """
        places = maps.flatten(2).transpose(1, 2)
        channels = places.shape[2]
        places = functional.layer_norm(places, (channels,))
        attention = (places @ self.queries.T / math.sqrt(channels)).softmax(1)
        embeddings = self.gains * (attention.transpose(1, 2) @ self.values(places))
        return (embeddings * self.weight).sum(2) + self.bias, embeddings
