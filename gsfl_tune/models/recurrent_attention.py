"""Recurrent attention: a network proposes a region of its image, sees it enlarged, and again.

Source: Fu, Zheng and Mei, "Look Closer to See Better: Recurrent Attention Convolutional Neural
Network for Fine-grained Image Recognition", CVPR 2017 (RA-CNN), sections 3.2 and 3.4. From the map
of an image an attention proposal network gives the centre (tx, ty) and the half side tl of a
square. With the logistic function h(x) = 1 / (1 + exp(-k x)) the boxcar mask

    M(x, y) = (h(x - tx + tl) - h(x - tx - tl)) (h(y - ty + tl) - h(y - ty - tl))

multiplies the image, and the square is enlarged to the whole size by bilinear interpolation: the
image of the next scale. The descriptors of all scales, each of unit length, are joined.

Other than in the source:

- All scales have one backbone and one head; descriptors are added, which is their concatenation
  with the same weights of the classifier for each.
- Positions of the interpolation have gradients, not the mask alone.
- The second layer of a proposal has weights that are quadratic in the position, so that maps of any
  size fit. The source's are of 14 x 14 positions.
- The source trains a proposal first, towards the square with half the side where the map answers
  most. Here it starts there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models._reads import full_precision, no_autocast, of_unit_size

# Of the side of an image: least and largest side of a region, and the one to start with.
_LEAST, _LARGEST, _FIRST = 1 / 3, 1.0, 1 / 2
# A region starts this share of its room away from an edge, so that it can move both ways.
_EDGE = 0.05
# Numbers 1, x, y, x^2, y^2, x y.
_TERMS = 6
_TINY = 1e-6


@dataclass(frozen=True)
class Recurrence:
    """Holds the settings of `RecurrentAttention`.

    Attributes:
        scales: How often an image is seen, the whole image included; at least 2.
        width: Channels between the two layers of a proposal.
        steepness: k of the mask, per pixel.
        start: Centre of untrained regions: where the map answers most (``response``), or the
            ``middle`` of the image.
    """

    scales: int = 3
    width: int = 64
    steepness: float = 10.0
    start: Literal["response", "middle"] = "response"


class AttentionProposal(nn.Module):
    """Proposes a square region of an image from its map.

    Args:
        channels: C of the map.
        settings: Width and start.
        seed: Of its weights.
    """

    def __init__(self, channels: int, settings: Recurrence, seed: int = 0) -> None:
        super().__init__()
        self.start = settings.start
        # A training's other random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(channels, settings.width, 1)
            self.last = nn.Linear(_TERMS * settings.width, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns regions (B, 3): tx, ty and tl as shares of the sides, inside the image.

        Args:
            maps: (B, C, h, w). It counts as a constant: regions learn from the next scale, and the
                backbone from what it sees.
        """
        with no_autocast(maps.device.type):
            values = full_precision(maps).detach()
            scaled = of_unit_size(values).to(self.first.weight.dtype)
            hidden = full_precision(self.first(scaled).tanh())
            basis = _basis(hidden).flatten(1)
            moments = basis @ hidden.flatten(2).transpose(1, 2) / basis.shape[1]
            weight, bias = (full_precision(each) for each in (self.last.weight, self.last.bias))
            moved = functional.linear(moments.flatten(1), weight, bias)
            side = _LEAST + (_LARGEST - _LEAST) * (moved[:, 2:] + _logit_of_first()).sigmoid()
            place = (self._start(values) + moved[:, :2]).sigmoid()
            centre = side / 2 + (1 - side) * place
            return torch.cat([centre, side / 2], dim=1)

    def _start(self, maps: Tensor) -> Tensor:
        """Returns logits (B, 2) of the place in its room where a region starts."""
        response = maps.abs().mean(dim=1)
        if self.start == "middle":
            return torch.zeros_like(response[:, :2, 0]).expand(-1, 2)
        least = response.amin(dim=(1, 2), keepdim=True)
        span = response.amax(dim=(1, 2), keepdim=True) - least
        # Squares favour the places that answer most; an even map has its centre in the middle.
        mass = ((response - least) / (span + _TINY)).square() + _TINY
        x, y = _positions(maps)
        total = mass.sum(dim=(1, 2))
        centre = torch.stack([(mass * x).sum((1, 2)), (mass * y[:, None]).sum((1, 2))], 1)
        # From -1..1 to 0..1, and to the share of the room.
        centre = (centre / total[:, None] + 1) / 2
        place = ((centre - _FIRST / 2) / (1 - _FIRST)).clamp(_EDGE, 1 - _EDGE)
        return (place / (1 - place)).log()


class RecurrentAttention(nn.Module):
    """Computes features of images at several scales, each a region of the one before.

    Args:
        channels: C of the maps.
        settings: Number of scales and the rest.
        seed: Of its weights.
    """

    def __init__(self, channels: int, settings: Recurrence, seed: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.settings = settings
        self.proposals = nn.ModuleList(
            AttentionProposal(channels, settings, seed + number)
            for number in range(settings.scales - 1)
        )

    def scales(
        self,
        images: Tensor,
        maps: Callable[[Tensor], Tensor],
        pool: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        """Returns unit features (B, D) of every scale, the whole image first.

        Args:
            images: (B, 3, height, width), normalised.
            maps: Images to maps (B, C, h, w).
            pool: Maps to unit features.
        """
        seen = maps(images)
        features = [pool(seen)]
        for proposal in self.proposals:
            images = zoomed(images, proposal(seen), self.settings.steepness)
            seen = maps(images)
            features.append(pool(seen))
        return features

    def features(
        self,
        images: Tensor,
        maps: Callable[[Tensor], Tensor],
        pool: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Returns the joint unit features (B, D); arguments as of `scales`."""
        return joined(self.scales(images, maps, pool))


def joined(features: Sequence[Tensor]) -> Tensor:
    """Returns the sum of unit features (B, D) of all scales, in unit length."""
    return functional.normalize(torch.stack(list(features)).sum(dim=0), dim=1)


def zoomed(images: Tensor, regions: Tensor, steepness: float) -> Tensor:
    """Computes square regions of images, masked and enlarged to the whole size, with gradients.

    Mask and bilinear interpolation are products with one matrix from each side, which every export
    format supports.

    Args:
        images: (B, 3, height, width), normalised: what is masked gets the mean colour.
        regions: (B, 3) tx, ty and tl, as shares of the sides.
        steepness: k, per pixel.

    Returns:
        (B, 3, height, width), in the type and memory layout of the images.
    """
    height, width = images.shape[2:]
    with no_autocast(images.device.type):
        x, y, half = full_precision(regions).unbind(dim=1)
        across = _resampling(x, half, width, steepness)
        down = _resampling(y, half, height, steepness)
        found = down[:, None] @ full_precision(images) @ across[:, None].transpose(2, 3)
    last = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return found.to(images.dtype).contiguous(memory_format=layout)


def recurrence_size(channels: int, scales: int, width: int) -> int:
    """Counts the parameters of a `RecurrentAttention`."""
    return (scales - 1) * ((channels + 1) * width + 3 * (_TERMS * width + 1))


def zoom_work(side: int) -> float:
    """Returns the operations of `zoomed` for a square image of a side in pixels."""
    return 2 * 2 * 3.0 * side**3


def _resampling(centre: Tensor, half: Tensor, count: int, steepness: float) -> Tensor:
    """Returns weights (B, count, count) of the pixels of a side, for each enlarged pixel.

    Args:
        centre: (B,) of regions, as shares.
        half: (B,) half sides.
        count: Pixels of the side.
        steepness: k, per pixel.
    """
    places = torch.arange(count, dtype=centre.dtype, device=centre.device) + 0.5
    low, high = ((centre - half) * count)[:, None], ((centre + half) * count)[:, None]
    mask = (steepness * (places - low)).sigmoid() - (steepness * (places - high)).sigmoid()
    # Behind the centres of the outermost pixels these go on.
    sources = (low + places / count * (high - low)).clamp(0.5, count - 0.5)
    weights = (1 - (sources[:, :, None] - places).abs()).clamp(min=0)
    return weights * mask[:, None, :]


def _positions(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x (w,) and y (h,) of the positions of maps (..., h, w), from -1 to 1."""

    def middles(count: int) -> Tensor:
        places = torch.arange(count, dtype=maps.dtype, device=maps.device)
        return (2 * places + 1) / count - 1

    return middles(maps.shape[-1]), middles(maps.shape[-2])


def _basis(maps: Tensor) -> Tensor:
    """Returns the numbers (6, h, w) of every position of maps (..., h, w) that weights multiply."""
    x, y = _positions(maps)
    x, y = x.expand(len(y), -1), y[:, None].expand(-1, len(x))
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y])


def _logit_of_first() -> float:
    share = (_FIRST - _LEAST) / (_LARGEST - _LEAST)
    return math.log(share / (1 - share))
