"""Grad-CAM of both parts: the places of an image that support the prediction.

Sources: Selvaraju et al., "Grad-CAM", ICCV 2017; Draelos and Carin, "Use HiResCAM instead of
Grad-CAM for faithful explanations of convolutional neural networks", arXiv 2011.08891.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gsfl_tune.models import HeadOutput, Network

Score = Callable[[HeadOutput], Tensor]


class NoMaps(Exception):
    """Signals a network with a single position in its feature map: maps are not possible."""


def activation_maps(network: Network, images: Tensor, scores: Sequence[Score]) -> list[Tensor]:
    """Computes a map of the evidence for each score.

    A map is gradient times activation at every position of the (projected) feature map, summed
    over the channels, with the negative part cut off. With average pooling the gradient is the
    same everywhere, and this equals Grad-CAM. Bilinear pooling weights each position by its
    content; Grad-CAM's mean gradient would lose that. Where the pooling reads more than the map
    (class tokens, the model's own head), the map is that of the last layer in front of it.

    Args:
        network: Network in eval mode.
        images: (B, 3, height, width), normalised, on the network's device.
        scores: Each turns the head's output of the batch into (B,) numbers.

    Returns:
        For each score (B, h, w), not negative, in units of the score.

    Raises:
        NoMaps: If h and w are 1, or only the class token counts.
    """
    backbone, size = network.backbone, images.shape[2:]
    # Parts and attention read the map itself, before a projection and the model's own head.
    joins = network.joins
    reads_map = network.pooling.reads == "map" or joins
    with torch.no_grad():
        if joins:
            values = network.maps(images)
        else:
            values = backbone(images) if reads_map else backbone.features(images)
        if network.projection is not None and not joins:
            values = network.projection(values)
    height, width = (values if reads_map else backbone.to_map(values, *size)).shape[2:]
    if height == width == 1:
        raise NoMaps(f"the feature map of {backbone.name} at {size[0]} px has one position")
    with torch.enable_grad():
        values = values.float().clone().requires_grad_()
        if joins:
            unit = network.pool_maps(values)
        else:
            read = values if reads_map else backbone.read(values, *size)
            unit = functional.normalize(network.pooling(read), dim=1)
        output = network.head(unit)
        found = []
        for score in scores:
            (gradient,) = torch.autograd.grad(score(output).sum(), values, retain_graph=True)
            products = gradient * values
            if not reads_map:
                if not backbone.to_map(gradient, *size).any():
                    raise NoMaps(f"the features of {backbone.name} are its class token alone")
                products = backbone.to_map(products, *size)
            found.append(products.sum(dim=1).relu().detach())
    return found


def class_score(classes: Tensor) -> Score:
    """Returns the score of a class, (B,) classes: its logit from the discriminative part."""

    def score(output: HeadOutput) -> Tensor:
        return output.logits.gather(1, classes[:, None])[:, 0]

    return score


def shared_score(directions: Tensor) -> Score:
    """Returns the score of a group: the shared part projected on a direction (B, H)."""

    def score(output: HeadOutput) -> Tensor:
        if output.shared is None:
            raise ValueError("a plain head has no shared part")
        return (output.shared * directions).sum(dim=1)

    return score


def group_directions(
    shared: NDArray[np.floating], groups: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """Returns directions (K, H) of unit length, from the mean shared part to each group's mean.

    Args:
        shared: (N, H) shared parts of images.
        groups: (N,) group of every image.
        count: K. For a single group the direction is that of its mean.
    """
    member = np.eye(count)[groups]
    sizes = np.maximum(member.sum(axis=0), 1)[:, None]
    means = member.T @ shared / sizes
    if count > 1:
        means = np.where(member.sum(axis=0)[:, None] > 0, means - shared.mean(axis=0), 0.0)
    lengths = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray(means / lengths, dtype=np.float32)


def enlarged(maps: Tensor, size: int) -> NDArray[np.float32]:
    """Scales maps (B, h, w) to the image size, (B, size, size), each with maximum 1 or 0."""
    shape = (size, size)
    large = functional.interpolate(maps[:, None], shape, mode="bilinear", align_corners=False)
    peak = large.amax(dim=(2, 3), keepdim=True)
    large = torch.where(peak > 0, large / peak.clamp(min=1e-12), torch.zeros_like(large))
    return np.asarray(large[:, 0].cpu().numpy(), dtype=np.float32)


def overlap(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Correlates two maps (B, h, w) over positions, for each image on which both vary."""
    a, b = (each.flatten(1).cpu().double() for each in (first, second))
    a, b = (each - each.mean(dim=1, keepdim=True) for each in (a, b))
    norms = a.norm(dim=1) * b.norm(dim=1)
    vary = norms > 1e-12
    return np.asarray(((a * b).sum(dim=1)[vary] / norms[vary]).numpy())
