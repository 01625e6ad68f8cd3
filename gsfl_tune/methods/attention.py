"""Where a network looks at, from its feature map, and the region of an image that this names.

Sources: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, and
Selvaraju et al., "Grad-CAM", ICCV 2017 (class activation maps); Hu et al., "See Better Before
Looking Closer: Weakly Supervised Data Augmentation Network", arXiv 1901.09891, equations 4 to 8
(crop and drop by a map).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.methods._base import Passes

# Of the side of an image, added on every side of a region (Rao et al., ICCV 2021).
PADDING = 0.1
# Thresholds are uniform in these ranges (the same paper).
_CROP = (0.4, 0.6)
_DROP = (0.2, 0.5)


def activation(maps: Tensor) -> Tensor:
    """Returns the mean absolute activation over the channels of maps (B, C, h, w): (B, h, w)."""
    return maps.detach().abs().mean(1)


def class_activation(maps: Tensor, labels: Tensor, passes: Passes) -> Tensor:
    """Computes how much every position adds to the score of a class.

    ``sum_c A_c dz_y / dA_c`` at every position of the map A, with the score z_y of the whole head,
    in evaluation mode, and the length of the pooled feature as a constant. With the mean as pooling
    and a linear head it is the class activation map of Zhou et al., whose sum is the score without
    its bias; an encoder in between is taken as linear around the feature (Grad-CAM). Poolings of
    second order weigh each position by what it shows.

    Args:
        maps: (B, C, h, w), of `Passes.maps`.
        labels: (B,) classes.
        passes: Through the model; there are maps.

    Returns:
        (B, h, w), without gradient, of any sign.
    """
    assert passes.pool is not None
    with torch.enable_grad(), passes.evaluating():
        leaf = (maps.float() if maps.element_size() < 4 else maps).detach().requires_grad_()
        scores = passes.infer(passes.pool(leaf, fixed_length=True))
        (slope,) = torch.autograd.grad(scores.gather(1, labels[:, None]).sum(), leaf)
    return (slope * leaf.detach()).sum(1)


def drawn_map(attention: Tensor, drawn: Tensor) -> Tensor:
    """Takes one of the maps of each image, with chances in proportion to the roots of their means.

    Args:
        attention: (B, M, h, w), not negative.
        drawn: (B,) in 0..1.

    Returns:
        (B, h, w).
    """
    chances = attention.mean((2, 3)).sqrt().cumsum(1)
    below = chances <= drawn[:, None] * chances[:, -1:]
    place = below.sum(1).clamp(max=attention.shape[1] - 1)
    return attention[torch.arange(len(attention), device=attention.device), place]


def enlarged(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales maps (B, h, w) to (B, height, width), each from 0, its least value, to 1, its largest.

    A map that is the same everywhere names no place: it becomes 0.
    """
    # Scaled before too: the rounding of an even map's interpolation would name places.
    large = functional.interpolate(
        _scaled(attention)[:, None], size, mode="bilinear", align_corners=False
    )
    return _scaled(large[:, 0])


def regions(attention: Tensor, thresholds: Tensor) -> Tensor:
    """Finds the rectangle around what is above a threshold, padded; the whole if nothing is.

    Args:
        attention: (B, height, width), of `enlarged`.
        thresholds: (B,) in 0..1.

    Returns:
        (B, 4) left, top, right and bottom edge, as shares of the sides.
    """
    inside = attention >= thresholds[:, None, None]
    left, right = _span(inside.any(1))
    top, bottom = _span(inside.any(2))
    edges = torch.stack([left - PADDING, top - PADDING, right + PADDING, bottom + PADDING], 1)
    return edges.clamp(0, 1).to(attention.dtype)


def attended_crop(images: Tensor, attention: Tensor, drawn: Tensor) -> Tensor:
    """Enlarges what images attend to.

    Args:
        images: (B, 3, height, width).
        attention: (B, height, width), of `enlarged`.
        drawn: (B,) in 0..1, for the threshold.
    """
    return crops(images, regions(attention, _within(_CROP, drawn)))


def attended_drop(images: Tensor, attention: Tensor, drawn: Tensor) -> Tensor:
    """Leaves out what images attend to; arguments as of `attended_crop`."""
    # Normalised images have their mean colour at 0.
    return images * ~attended_places(attention, drawn)[:, None]


def attended_places(attention: Tensor, drawn: Tensor) -> Tensor:
    """Returns which pixels images attend to, (B, height, width).

    Args:
        attention: (B, height, width), of `enlarged`.
        drawn: (B,) in 0..1, for the threshold.
    """
    return attention >= _within(_DROP, drawn)[:, None, None]


def crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Enlarges rectangles of images to the whole size, by bilinear interpolation.

    Args:
        images: (B, 3, height, width).
        boxes: (B, 4) left, top, right, bottom, as shares of the sides.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    scale, shift = high - low, high + low - 1
    matrices = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    matrices[:, 0, 0], matrices[:, 1, 1] = scale.unbind(1)
    matrices[:, :, 2] = shift
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    found = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return like(images, found)


def like(images: Tensor, others: Tensor) -> Tensor:
    """Returns other images in the memory layout of images, for which convolutions are fast."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return others.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _within(limits: tuple[float, float], drawn: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * drawn


def _scaled(values: Tensor) -> Tensor:
    """Brings maps (B, h, w) to 0..1; even ones to 0."""
    least = values.amin((1, 2), keepdim=True)
    span = values.amax((1, 2), keepdim=True) - least
    return (values - least) / torch.where(span > 0, span, torch.ones_like(span))


def _span(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the edges of the first and last of (B, n) places that are inside, as shares of n."""
    count = inside.shape[1]
    marks = inside.to(torch.int8)
    first = marks.argmax(1)
    last = count - marks.flip(1).argmax(1)
    return first / count, last / count
