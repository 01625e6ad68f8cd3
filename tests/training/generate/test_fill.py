"""Which classes get generated features, against a plain loop."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsfl_tune.training.generate.fill import filled, made_count, supports


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    count=st.integers(0, 60),
)
def test_the_smallest_class_gets_the_next_one(sizes, count):
    got = filled(np.array(sizes), count, generator())
    plain = [float(size) if size else np.inf for size in sizes]
    for _ in range(count):
        plain[int(np.argmin(plain))] += 1
    ours = [float(size + more) if size else np.inf for size, more in zip(sizes, got, strict=True)]
    # Which of several smallest classes gets the last ones is left to chance.
    assert sorted(ours) == sorted(plain)
    assert int(got.sum()) == count
    assert all(more == 0 for size, more in zip(sizes, got, strict=True) if size == 0)


def test_what_is_left_goes_to_classes_at_random():
    found = {tuple(filled(np.array([4, 4, 4]), 1, generator(seed)).tolist()) for seed in range(20)}
    assert found == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_features_of_a_class_come_from_its_training_images_in_turn():
    labels = np.array([0] * 9 + [1] * 3 + [2] * 5)
    positions = np.array([0, 1, 2, 3, 4, 5, 9, 10, 12, 13, 14])
    got = supports(positions, positions, labels, 8, generator())
    # 6, 2 and 3 images: 8 features make it 6, 6 or 7, 6 or 7.
    sizes = np.bincount(labels[got], minlength=3) + np.array([6, 2, 3])
    assert sorted(sizes.tolist()) == [6, 6, 7]
    assert set(got.tolist()) <= set(positions.tolist())
    counts = np.bincount(got, minlength=17)
    assert counts[9:11].max() - counts[9:11].min() <= 1


def test_classes_that_are_shown_more_often_get_less():
    labels = np.array([0] * 6 + [1] * 2)
    positions = np.arange(8)
    drawn = np.array([0, 1, 2, 3, 6, 6, 7, 7])
    assert set(labels[supports(positions, positions, labels, 4, generator())]) == {1}
    assert sorted(labels[supports(drawn, positions, labels, 4, generator())]) == [0, 0, 1, 1]


def test_no_features_are_a_share_of_zero():
    labels = np.array([0, 1])
    assert made_count(7, 0.0) == 0
    assert made_count(7, 0.5) == 4
    assert len(supports(np.arange(2), np.arange(2), labels, 0, generator())) == 0
