from __future__ import annotations

from collections import Counter

import pytest

from gsfl_tune.data.training_images import TrainingImage
from gsfl_tune.synthesis.recipes import recipe

IMAGES = [TrainingImage(f"{n}.png", bytes([n]) * 16, n) for n in range(5)]


def recipes(count: int = 15, name: str = "ash", seed: int = 0, images=IMAGES, mixes: bool = True):
    return [recipe(images, name, number, seed=seed, mixes=mixes) for number in range(count)]


def test_each_image_begins_one_before_any_begins_another():
    found = recipes()
    for turn in range(3):
        rows = sorted(each.first.row for each in found[5 * turn : 5 * turn + 5])
        assert rows == [0, 1, 2, 3, 4]


def test_the_second_image_is_another_one_and_any_of_them():
    found = recipes(400)
    assert all(each.second is not None and each.second != each.first for each in found)
    pairs = Counter((each.first.row, each.second.row) for each in found)
    assert len(pairs) == 20


def test_they_depend_on_seed_class_and_number_alone():
    assert recipes(3) == recipes(9)[:3]
    assert recipes() != recipes(seed=1)
    assert recipes() != recipes(name="yew")
    assert len({each.seed for each in [*recipes(), *recipes(name="yew")]}) == 30


@pytest.mark.parametrize(("images", "mixes"), [(IMAGES[:1], True), (IMAGES, False)])
def test_there_may_be_no_second_image(images, mixes):
    assert {each.second for each in recipes(images=images, mixes=mixes)} == {None}
