"""Parts that a network finds on its map, and whose aligned features it joins to the global one.

Sources: Zhang et al., "Part-based R-CNNs for Fine-grained Category Detection", ECCV 2014: detectors
of parts are learnt from annotated boxes, features of the detected boxes are joined to that of the
whole, and prediction needs no annotation; He et al., "Mask R-CNN", ICCV 2017: features of a box are
aligned, means of bilinear samples of the map (RoIAlign).

Other than in the source:

- The detector is a layer on the backbone's own map and finds all parts at once: without proposals,
  anchors and a pass of the backbone for each box. A part has one box: its centre is the mean of a
  distribution over the positions of the map (Li et al., "Generalized Focal Loss", NeurIPS 2020;
  Nibali et al., arXiv 1801.07372), so that boxes have gradients, and change little where the map
  changes little, in every format of an export.
- Features are added after a projection of each part's own, in place of their concatenation in front
  of a classifier: that is the concatenation in front of the head's first layer, whose weights for a
  part are a product of its weights for the whole and that projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models._reads import full_precision, no_autocast, of_unit_size

# Side of a box to start with, as a share of the image's; and how surely a part is there.
_FIRST_SIDE = 0.25
_FIRST_PRESENCE = 0.1
# Of a box, samples a side.
_SAMPLES = 8
# Score, offset (x, y), size (width, height), presence.
_NUMBERS = 6


@dataclass(frozen=True)
class PartSettings:
    """Holds the sizes of a `PartDetector`.

    Attributes:
        count: P, number of parts.
        dim: D of the global features.
        width: E, channels of the detector and of the features of a part.
    """

    count: int
    dim: int
    width: int = 128


@dataclass(frozen=True)
class Detections:
    """Holds what a detector says of the P parts of B images.

    Attributes:
        scores: (B, P, h, w) of the positions of the map, before the softmax over them.
        boxes: (B, P, 4) left, top, right, bottom, as shares of the sides.
        presence: (B, P) whether a part is there, before the sigmoid.
    """

    scores: Tensor
    boxes: Tensor
    presence: Tensor

    @property
    def confidence(self) -> Tensor:
        """Returns (B, P) probabilities of parts to be there."""
        return self.presence.sigmoid()


class PartDetector(nn.Module):
    """Finds parts on a map, and joins their features to the global ones.

    With the map x, divided by its root mean square over an image, and a part p,

        a_p = softmax over l of s_pl     centre = sum_l a_pl (position of l + offset_pl)
        side = sigmoid(sum_l a_pl g_pl)  confidence c_p = sigmoid(sum_l a_pl q_pl)
        f' = f + sum_p c_p W_p u_p / sqrt(D P), in unit length

    s, offsets, g and q are a layer on ReLU(V x). u_p, of unit length, is the mean of ReLU(U x) over
    the box of p. W starts at zero: f' is f until parts have been learnt. Boxes and confidences are
    constants where features are joined: what they mean is for annotations alone to say.

    Args:
        channels: C of the map.
        settings: Sizes.
        seed: Of its weights.

    Attributes:
        noted: Where `noting` keeps what is found.
    """

    def __init__(self, channels: int, settings: PartSettings, seed: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.settings = settings
        self.noted: list[Detections] | None = None
        count, width = settings.count, settings.width
        # A training's other random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduce = nn.Conv2d(channels, width, 1)
            self.describe = nn.Conv2d(channels, width, 1)
            self.find = nn.Conv2d(width, _NUMBERS * count, 1)
        for parameter in self.find.parameters():
            nn.init.zeros_(parameter)
        self.join = nn.Parameter(torch.zeros(count * width, settings.dim))

    def forward(self, unit: Tensor, maps: Tensor) -> tuple[Tensor, Detections]:
        """Returns joint features (B, D), of any length, and what was found.

        Args:
            unit: (B, D) global unit features.
            maps: (B, C, h, w).
        """
        with no_autocast(maps.device.type):
            values = self._scaled(maps)
            found = self._detected(values)
            described = full_precision(self.describe(values).relu())
            parts = functional.normalize(aligned(described, found.boxes.detach()), dim=2)
            weighted = (parts * found.confidence.detach()[..., None]).flatten(1)
            added = full_precision(weighted.to(self.join.dtype) @ self.join)
            size = math.sqrt(self.settings.dim * self.settings.count)
            if self.noted is not None:
                self.noted.append(found)
            return full_precision(unit) + added / size, found

    def detect(self, maps: Tensor) -> Detections:
        """Finds the parts on maps (B, C, h, w)."""
        with no_autocast(maps.device.type):
            return self._detected(self._scaled(maps))

    def _scaled(self, maps: Tensor) -> Tensor:
        return of_unit_size(maps).to(self.reduce.weight.dtype)

    def _detected(self, values: Tensor) -> Detections:
        numbers = full_precision(self.find(self.reduce(values).relu()))
        height, width = values.shape[2:]
        numbers = numbers.unflatten(1, (self.settings.count, _NUMBERS))
        scores = numbers[:, :, 0]
        attention = scores.flatten(2).softmax(dim=2)[:, :, None]
        # Offsets of at most a position: every place in the image can be the centre.
        offsets = numbers[:, :, 1:3].flatten(3).tanh()
        others = (attention * numbers[:, :, 3:].flatten(3)).sum(dim=3)
        offsets = torch.cat([offsets[:, :, :1] / width, offsets[:, :, 1:] / height], dim=2)
        centres = (attention * (_places(scores) + offsets)).sum(dim=3)
        sides = (others[:, :, :2] + math.log(_FIRST_SIDE / (1 - _FIRST_SIDE))).sigmoid()
        presence = others[:, :, 2] + math.log(_FIRST_PRESENCE / (1 - _FIRST_PRESENCE))
        boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=2)
        return Detections(scores, boxes, presence)

    @contextmanager
    def noting(self) -> Iterator[list[Detections]]:
        """Keeps what is found as long as the block runs, one entry for every pass."""
        self.noted = []
        try:
            yield self.noted
        finally:
            self.noted = None


def aligned(maps: Tensor, boxes: Tensor) -> Tensor:
    """Computes the mean of maps over boxes, of 8 x 8 bilinear samples each.

    It equals torchvision's `roi_align` (aligned, of one output and 8 samples a side). As samples
    form a grid, they are a product with the positions' weights of each axis, which every export
    format supports.

    Args:
        maps: (B, E, h, w).
        boxes: (B, P, 4), as shares of the sides; what is outside of the image is cut off.

    Returns:
        (B, P, E).
    """
    boxes = boxes.clamp(0, 1)
    across = _weights(boxes[..., 0], boxes[..., 2], maps.shape[3])
    down = _weights(boxes[..., 1], boxes[..., 3], maps.shape[2])
    weights = (down[..., :, None] * across[..., None, :]).flatten(2)
    return weights @ maps.flatten(2).transpose(1, 2)


def part_detector_size(channels: int, settings: PartSettings) -> int:
    """Counts the parameters of a `PartDetector`."""
    count, width = settings.count, settings.width
    layers = 2 * (channels + 1) * width + (width + 1) * _NUMBERS * count
    return layers + count * width * settings.dim


def part_work(channels: int, positions: int, settings: PartSettings) -> float:
    """Returns the operations of a `PartDetector` for an image.

    Args:
        channels: C of the map.
        positions: Of the map.
        settings: Sizes.
    """
    count, width = settings.count, settings.width
    place = 2 * channels * width + width * _NUMBERS * count + count * width
    return 2.0 * (positions * place + count * width * settings.dim)


def _weights(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Returns the weights (B, P, count) of the positions of a side, from low to high (B, P)."""
    steps = torch.arange(_SAMPLES, dtype=low.dtype, device=low.device)
    shares = (steps + 0.5) / _SAMPLES
    samples = low[..., None] + shares * (high - low)[..., None]
    samples = (samples * count - 0.5).clamp(0, count - 1)
    positions = torch.arange(count, dtype=low.dtype, device=low.device)
    return (1 - (samples[..., None] - positions).abs()).clamp(min=0).mean(dim=2)


def _places(scores: Tensor) -> Tensor:
    """Returns x and y of the positions of maps (..., h, w), as shares: (2, h w)."""

    def middles(count: int) -> Tensor:
        places = torch.arange(count, dtype=scores.dtype, device=scores.device)
        return (places + 0.5) / count

    height, width = scores.shape[-2:]
    x, y = middles(width).expand(height, -1), middles(height)[:, None].expand(-1, width)
    return torch.stack([x, y]).flatten(1)
