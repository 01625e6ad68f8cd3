"""SnapMix: a box of another image, whose labels count by what the network sees in both boxes.

Source: Huang, Wang and Tao, "SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained
Data", AAAI 2021, equations 1 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.methods.attention import class_activation, like

# Random numbers of an image: partner, whether, and of each box its area and place.
_DRAWS = 8


@dataclass(frozen=True)
class Boxes:
    """Holds a rectangle of each image, in pixels.

    Attributes:
        top: (B,) int64.
        left: (B,) int64.
        height: (B,) int64; 0 is an empty box.
        width: (B,) int64.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def inside(self, height: int, width: int) -> Tensor:
        """Returns which pixels of images are in their box, (B, height, width)."""
        device = self.top.device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        down = (rows >= self.top[:, None]) & (rows < (self.top + self.height)[:, None])
        across = (columns >= self.left[:, None]) & (columns < (self.left + self.width)[:, None])
        return down[:, :, None] & across[:, None]


class SnapMix(Method):
    """Pastes a box of image b, in another size, into a box of image a.

    With M the class activation map of an image for its own class, enlarged to the image, less its
    smallest value and divided by its sum,

        w_a = 1 - sum of M_a over the box in a
        w_b = sum of M_b over the box in b
        loss = w_a CE(y_a) + w_b CE(y_b) + other terms

    for every image of the batch. The weights need not sum to 1: little of either class may be left.
    Where both images show one class its weights add up. The areas of the boxes are 1 - lambda of
    the image with a lambda of Beta(alpha, alpha) for each of them, and their places are uniform.
    Images b are the batch in another order.

    M needs a pass without gradient, in evaluation mode; see `attention.class_activation` for its
    equation, which is the paper's where the pooling is the mean and the head linear. Terms of the
    loss besides cross-entropy see the label with the larger weight, once.

    Args:
        alpha: Of the distribution of areas.
        probability: Share of the images that are mixed.
    """

    # The pass for the maps has no gradient, so this is a little too much.
    feature_passes = 2
    head_passes = 2
    reads_maps = True
    needs_images = True
    unmixed = True

    def __init__(self, alpha: float, probability: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.probability = probability

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of the mixed images; in the head stage of the features as they are."""
        if passes.maps is None:
            return single_pass(batch, passes)
        images, targets = batch.inputs, batch.targets
        shares = self._shares(batch, passes)
        drawn = passes.draws(batch.positions, _DRAWS)
        order = drawn[:, 0].argsort(stable=True).to(images.device)
        into, out_of = self._boxes(drawn, images)
        size = (images.shape[2], images.shape[3])
        kept = 1 - _sum(shares, into.inside(*size))
        pasted = _sum(shares[order], out_of.inside(*size))
        features = passes.features(paste(images, images[order], into, out_of))
        output = passes.head(features)
        others = _rows(targets, order)
        larger = torch.where(kept >= pasted, targets.labels, others.labels)
        terms = passes.loss(output, features, replace(targets, labels=larger))
        cross = [
            passes.cross_entropy(output.logits, each.weighted(weight))
            for each, weight in ((targets, kept), (others, pasted))
        ]
        mixed = cross[0] + cross[1]
        return terms._replace(total=terms.total - terms.cross_entropy + mixed, cross_entropy=mixed)

    def _shares(self, batch: Batch, passes: Passes) -> Tensor:
        """Returns how much of each image's class is at every pixel, (B, height, width), sum 1."""
        assert passes.maps is not None
        images = batch.inputs
        with torch.no_grad(), passes.evaluating():
            maps = passes.maps(images)
        found = class_activation(maps, batch.labels, passes).to(images.dtype)
        found = found - found.amin((1, 2), keepdim=True)
        # An even map says that all places count alike.
        even = found.amax((1, 2), keepdim=True) <= 0
        found = torch.where(even, torch.ones_like(found), found)
        large = functional.interpolate(
            found[:, None], images.shape[2:], mode="bilinear", align_corners=False
        )[:, 0]
        large = large - large.amin((1, 2), keepdim=True) * ~even
        return large / large.sum((1, 2), keepdim=True)

    def _boxes(self, drawn: Tensor, images: Tensor) -> tuple[Boxes, Boxes]:
        """Returns the boxes that are pasted into, and those that they come from."""
        u = drawn.double().numpy()
        height, width = images.shape[2:]
        # Of the sides, for the areas of both boxes.
        sides = np.sqrt(1 - betaincinv(self.alpha, self.alpha, u[:, 2:4]))
        heights, widths = np.rint(sides * height), np.rint(sides * width)
        used = (u[:, 1] < self.probability) & ((heights >= 1) & (widths >= 1)).all(1)

        def made(box: int, drawn_at: int) -> Boxes:
            high, wide = heights[:, box] * used, widths[:, box] * used
            top = np.floor(u[:, drawn_at] * (height - high + 1))
            left = np.floor(u[:, drawn_at + 1] * (width - wide + 1))
            edges = (top, left, high, wide)
            return Boxes(*(torch.from_numpy(each).long().to(images.device) for each in edges))

        return made(0, 4), made(1, 6)


def paste(images: Tensor, others: Tensor, into: Boxes, out_of: Boxes) -> Tensor:
    """Fills a box of each image with a box of another one, by bilinear interpolation.

    Args:
        images: (B, 3, height, width).
        others: (B, 3, height, width).
        into: Boxes of the images.
        out_of: Boxes of the others; both are empty, or none is.
    """
    height, width = images.shape[2:]

    def places(count: int, start: Tensor, length: Tensor, low: Tensor, extent: Tensor) -> Tensor:
        """Returns where each place of a side comes from, in -1..1 along the other image."""
        centres = torch.arange(count, device=images.device, dtype=images.dtype) + 0.5
        scale = extent.to(images.dtype) / length.clamp(min=1)
        found = low[:, None] + (centres - start[:, None]) * scale[:, None]
        # Nothing beside the box is blended in.
        first = low[:, None] + 0.5
        found = torch.minimum(torch.maximum(found, first), first + (extent[:, None] - 1).clamp(0))
        return 2 * found / count - 1

    down = places(height, into.top, into.height, out_of.top, out_of.height)
    across = places(width, into.left, into.width, out_of.left, out_of.width)
    shape = (len(images), height, width)
    grid = torch.stack([across[:, None].expand(shape), down[:, :, None].expand(shape)], dim=3)
    found = functional.grid_sample(others, grid, padding_mode="border", align_corners=False)
    return like(images, torch.where(into.inside(height, width)[:, None], found, images))


def _sum(shares: Tensor, inside: Tensor) -> Tensor:
    return (shares * inside).sum((1, 2))


def _rows(targets: Targets, order: Tensor) -> Targets:
    def of(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[order]

    return replace(
        targets,
        labels=targets.labels[order],
        soft=of(targets.soft),
        weights=of(targets.weights),
    )
