"""Where in an image a network finds what it says: Grad-CAM of either part.

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
    """A network whose feature map has a single position: no place stands out."""


def activation_maps(network: Network, images: Tensor, scores: Sequence[Score]) -> list[Tensor]:
    """Maps of what speaks for each score.

    Gradient times activation at every position of the (projected) feature map, summed over the
    channels, the negative part cut off. With average pooling the gradient is the same everywhere
    and this is Grad-CAM exactly; a bilinear pooling weighs each position by what is there, and
    Grad-CAM's mean gradient would lose that.

    Args:
        network: In eval mode.
        images: (B, 3, height, width), normalised, on the network's device.
        scores: Each makes (B,) numbers of what the head says of the batch.

    Returns:
        For each score (B, h, w), not negative, in units of the score.

    Raises:
        NoMaps: If h and w are 1.
    """
    with torch.no_grad():
        maps = network.backbone(images)
        if network.projection is not None:
            maps = network.projection(maps)
    height, width = maps.shape[2:]
    if height == width == 1:
        raise NoMaps(
            f"the feature map of {network.backbone.name} at {images.shape[2]} px has one position"
        )
    with torch.enable_grad():
        maps = maps.float().clone().requires_grad_()
        output = network.head(functional.normalize(network.pooling(maps), dim=1))
        found = []
        for score in scores:
            (gradient,) = torch.autograd.grad(score(output).sum(), maps, retain_graph=True)
            found.append((gradient * maps).sum(dim=1).relu().detach())
    return found


def class_score(classes: Tensor) -> Score:
    """The logit of a class, (B,) classes: what the discriminative part says."""

    def score(output: HeadOutput) -> Tensor:
        return output.logits.gather(1, classes[:, None])[:, 0]

    return score


def shared_score(directions: Tensor) -> Score:
    """How far the shared part lies in a direction (B, H): what speaks for a group."""

    def score(output: HeadOutput) -> Tensor:
        if output.shared is None:
            raise ValueError("a plain head has no shared part")
        return (output.shared * directions).sum(dim=1)

    return score


def group_directions(
    shared: NDArray[np.floating], groups: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """From the mean of all shared parts to that of each group: (K, H), unit length.

    Args:
        shared: (N, H) shared parts of images.
        groups: (N,) group of every image.
        count: K. A single group has the direction of its mean.
    """
    member = np.eye(count)[groups]
    sizes = np.maximum(member.sum(axis=0), 1)[:, None]
    means = member.T @ shared / sizes
    if count > 1:
        means = np.where(member.sum(axis=0)[:, None] > 0, means - shared.mean(axis=0), 0.0)
    lengths = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray(means / lengths, dtype=np.float32)


def enlarged(maps: Tensor, size: int) -> NDArray[np.float32]:
    """Maps (B, h, w) at the size of the image, (B, size, size), each with a maximum of 1 or 0."""
    shape = (size, size)
    large = functional.interpolate(maps[:, None], shape, mode="bilinear", align_corners=False)
    peak = large.amax(dim=(2, 3), keepdim=True)
    large = torch.where(peak > 0, large / peak.clamp(min=1e-12), torch.zeros_like(large))
    return np.asarray(large[:, 0].cpu().numpy(), dtype=np.float32)


def overlap(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Correlation over the positions of two maps (B, h, w) of each image, where both vary."""
    a, b = (each.flatten(1).double().cpu() for each in (first, second))
    a, b = (each - each.mean(dim=1, keepdim=True) for each in (a, b))
    norms = a.norm(dim=1) * b.norm(dim=1)
    vary = norms > 1e-12
    return np.asarray(((a * b).sum(dim=1)[vary] / norms[vary]).numpy())
