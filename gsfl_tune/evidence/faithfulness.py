"""Whether a map marks what the model uses: deletion and insertion curves, beside shuffled maps.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, section 4.2: the probability of a class while pixels are deleted, or inserted
into a blurred image, in the order of their importance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from gsfl_tune.evidence.gradcam import enlarged

STEPS = 16
RANDOM_MAPS = 3
_BATCH = 32
# RISE blurs images of 224 pixels with a standard deviation of 5.
_BLUR = 5 / 224

Probability = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curves:
    """Holds the probability of a class by the share of pixels that were treated.

    Attributes:
        deletion: (S + 1,) while the most important pixels become the mean colour.
        insertion: (S + 1,) while the most important pixels appear in the blurred image.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def deletion_area(self) -> float:
        """Returns the area below the deletion curve, within 0..1: small is good."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """Returns the area below the insertion curve, within 0..1: large is good."""
        return _area(self.insertion)


@dataclass(frozen=True)
class Faithfulness:
    """Compares a map with random maps: its own values, shuffled over its positions.

    Attributes:
        own: Curves of the map.
        random: Curves of the random maps.
    """

    own: Curves
    random: list[Curves]

    @property
    def faithful(self) -> bool:
        """Returns whether the map beats every random one, by deletion and by insertion."""
        return all(
            self.own.deletion_area < each.deletion_area
            and self.own.insertion_area > each.insertion_area
            for each in self.random
        )

    def to_json(self) -> dict[str, object]:
        """Returns the areas: those of the random maps are means."""
        return {
            "faithful": self.faithful,
            "deletion": self.own.deletion_area,
            "insertion": self.own.insertion_area,
            "random_deletion": float(np.mean([each.deletion_area for each in self.random])),
            "random_insertion": float(np.mean([each.insertion_area for each in self.random])),
        }


def faithfulness(
    probability: Probability,
    image: Tensor,
    heat: Tensor,
    *,
    steps: int = STEPS,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
) -> Faithfulness:
    """Measures a map and random maps by deletion and insertion.

    A random map has the values of the map in other positions. So both delete blocks of one size,
    and leave as much in no order: scattered pixels disturb a network more than a block does.

    Args:
        probability: Returns the probability of the explained class (B,) of normalised images.
        image: (1, 3, side, side), normalised: 0 is the mean colour.
        heat: (1, h, w) of `activation_maps`.
        steps: Shares of pixels between none and all.
        random_maps: Number of maps with the same values at shuffled positions.
        seed: Of these maps, and of the order of equal pixels.
    """
    generator = np.random.default_rng(seed)
    side = image.shape[-1]
    values = heat.detach().cpu().flatten()
    orders = [torch.from_numpy(generator.permutation(len(values))) for _ in range(random_maps)]
    shuffled = [values[order].reshape(heat.shape) for order in orders]
    maps = [enlarged(each, side)[0] for each in (heat.detach().cpu(), *shuffled)]
    found = [curves(probability, image, each, steps=steps, generator=generator) for each in maps]
    return Faithfulness(found[0], found[1:])


def curves(
    probability: Probability,
    image: Tensor,
    heat: NDArray[np.floating],
    *,
    steps: int,
    generator: np.random.Generator,
) -> Curves:
    """Computes the curves of one map.

    Args:
        probability: As for `faithfulness`.
        image: (1, 3, side, side), normalised.
        heat: (side, side) importance of every pixel.
        steps: S.
        generator: Orders equal pixels: most of a map may be 0.
    """
    flat = heat.reshape(-1)
    order = np.lexsort((generator.random(len(flat)), -flat))
    rank = np.empty(len(flat), dtype=np.int64)
    rank[order] = np.arange(len(flat))
    counts = np.linspace(0, len(flat), steps + 1).round().astype(np.int64)
    treated = torch.from_numpy(rank[None] < counts[:, None]).reshape(-1, 1, *heat.shape)
    treated = treated.to(image.device)
    deleted = torch.where(treated, torch.zeros_like(image), image)
    inserted = torch.where(treated, image, blurred(image))
    return Curves(_values(probability, deleted), _values(probability, inserted))


def blurred(image: Tensor) -> Tensor:
    """Returns a copy of an image (B, 3, side, side) in which nothing can be recognised."""
    sigma = _BLUR * image.shape[-1]
    half = max(1, math.ceil(sigma))
    return gaussian_blur(image, [2 * half + 1, 2 * half + 1], [sigma, sigma])


def _values(probability: Probability, images: Tensor) -> NDArray[np.float64]:
    parts = [probability(part).cpu().double() for part in images.split(_BATCH)]
    return np.asarray(torch.cat(parts).numpy())


def _area(curve: NDArray[np.float64]) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))
