"""Which images of a class a synthetic image is made from, and its noise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsfl_tune.data.training_images import TrainingImage


@dataclass(frozen=True)
class Recipe:
    """Says how an image is made.

    Attributes:
        number: Its number within the class.
        seed: Seed of its noise.
        first: The image that it begins from.
        second: The image of the same class that is mixed in; None for none.
    """

    number: int
    seed: int
    first: TrainingImage
    second: TrainingImage | None


def recipe(
    images: Sequence[TrainingImage], name: str, number: int, *, seed: int, mixes: bool
) -> Recipe:
    """Chooses the images and the noise of one synthetic image.

    It depends on the seed, the class and the number alone, so that more images can be asked for
    later. Each image of a class is a first one once before any is again.

    Args:
        images: The training images of the class, at least one, in an order of their own.
        name: The class.
        number: Number of the synthetic image within the class.
        seed: Seed of the synthesis.
        mixes: Whether a second image is mixed in; of a class with one image there is none.
    """
    turn, place = divmod(number, len(images))
    first = int(_random(seed, name, f"turn {turn}").permutation(len(images))[place])
    random = _random(seed, name, f"image {number}")
    noise = int(random.integers(2**31))
    second = None
    if mixes and len(images) > 1:
        other = int(random.integers(len(images) - 1))
        second = images[other + (other >= first)]
    return Recipe(number, noise, images[first], second)


def _random(seed: int, name: str, what: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed} {what} {name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
