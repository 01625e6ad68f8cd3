"""Deletion and insertion curves, against a plain loop and on a model whose evidence is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from gsfl_tune.evidence.faithfulness import blurred, curves, faithfulness

SIDE, PATCH = 48, 12


def probability(images: Tensor) -> Tensor:
    """A class that the brightness of the upper left patch decides."""
    return torch.sigmoid(4 * images[:, :, :PATCH, :PATCH].mean(dim=(1, 2, 3)) - 2)


def picture(seed: int = 0) -> Tensor:
    noise = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    noise[:, :, :PATCH, :PATCH] += 1.5
    return noise


def plain_blur(image: np.ndarray) -> np.ndarray:
    """Convolves (3, side, side) with a Gaussian, the border mirrored, pixel by pixel."""
    side = image.shape[-1]
    sigma = 5 / 224 * side
    half = int(np.ceil(sigma))
    offsets = np.arange(-half, half + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    wide = np.pad(image, ((0, 0), (half, half), (half, half)), mode="reflect")
    result = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            part = wide[:, y : y + 2 * half + 1, x : x + 2 * half + 1]
            result[:, y, x] = np.einsum("cij,i,j->c", part, kernel, kernel)
    return result


def test_curves_are_those_of_a_plain_loop():
    image = picture()
    heat = np.random.default_rng(3).permutation(SIDE * SIDE).reshape(SIDE, SIDE) / SIDE**2
    steps = 5
    found = curves(probability, image, heat, steps=steps, generator=np.random.default_rng(0))
    pixels = image[0].double().numpy()
    soft = plain_blur(pixels)
    places = sorted((-heat[y, x], y, x) for y in range(SIDE) for x in range(SIDE))
    deletion, insertion = [], []
    for step in range(steps + 1):
        deleted, inserted = pixels.copy(), soft.copy()
        for _, y, x in places[: round(step * SIDE * SIDE / steps)]:
            deleted[:, y, x] = 0
            inserted[:, y, x] = pixels[:, y, x]
        for values, each in ((deletion, deleted), (insertion, inserted)):
            mean = each[:, :PATCH, :PATCH].mean()
            values.append(1 / (1 + np.exp(-(4 * mean - 2))))
    assert found.deletion == pytest.approx(deletion, abs=1e-5)
    assert found.insertion == pytest.approx(insertion, abs=1e-5)
    area = sum((a + b) / 2 / steps for a, b in pairwise(deletion))
    assert found.deletion_area == pytest.approx(area, abs=1e-6)


def test_ends_are_the_image_and_nothing_of_it():
    image = picture()
    heat = np.zeros((SIDE, SIDE))
    found = curves(probability, image, heat, steps=4, generator=np.random.default_rng(0))
    whole, nothing, soft = (
        float(probability(each)[0]) for each in (image, 0 * image, blurred(image))
    )
    assert found.deletion[[0, -1]] == pytest.approx([whole, nothing])
    assert found.insertion[[0, -1]] == pytest.approx([soft, whole])


@pytest.mark.parametrize("seed", range(4))
def test_a_map_of_the_evidence_is_faithful_and_one_of_the_rest_is_not(seed):
    image = picture(seed)
    right = torch.zeros(1, 8, 8)
    right[0, :2, :2] = torch.tensor([[1, 0.9], [0.8, 0.7]])
    found = faithfulness(probability, image, right, seed=seed)
    assert found.faithful
    about = found.to_json()
    assert about["deletion"] < about["random_deletion"]
    assert about["insertion"] > about["random_insertion"]
    assert len(found.random) == 3
    assert not faithfulness(probability, image, 1 - right, seed=seed).faithful


def test_an_empty_map_is_no_better_than_chance():
    """All pixels are equal: their order must not favour a corner."""
    wins = sum(
        faithfulness(probability, picture(), torch.zeros(1, 4, 4), steps=8, seed=seed).faithful
        for seed in range(12)
    )
    assert wins <= 6
