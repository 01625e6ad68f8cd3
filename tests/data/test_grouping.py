"""Clusters of photographs and distances between parts, against plain loops."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gsfl_tune.data.grouping import (
    Nearness,
    alike_clusters,
    copies_of,
    nearest_is_right,
    nearness,
    together,
)
from gsfl_tune.data.looks import Looks


def looks_at(descriptors: np.ndarray, unknown: tuple[int, ...] = ()) -> Looks:
    """Photographs with these descriptors; the thumbnails of all are noise."""
    random, count = np.random.default_rng(0), len(descriptors)
    known = np.ones(count, bool)
    known[list(unknown)] = False
    return Looks(
        descriptors=descriptors.astype(np.int8),
        greys=random.integers(0, 256, (count, 32, 32), dtype=np.uint8),
        thumbs=random.integers(0, 256, (count, 16, 16), dtype=np.uint8),
        colours=random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8),
        known=known,
        taken=np.full(count, np.nan),
        cameras=np.zeros(count, np.uint32),
    )


def scenes(random: np.random.Generator, sizes: list[int]) -> tuple[np.ndarray, list[int]]:
    """Descriptors of photographs of some scenes, in random order, and their scenes."""
    centres = random.integers(20, 100, (len(sizes), 192)) * (random.random((len(sizes), 192)) < 0.3)
    names = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return centres[names] + random.integers(0, 4, (len(names), 192)), names.tolist()


def same(numbers) -> set[frozenset[int]]:
    """Which positions have equal numbers."""
    found: dict[int, set[int]] = {}
    for position, number in enumerate(numbers):
        found.setdefault(int(number), set()).add(position)
    return {frozenset(each) for each in found.values()}


def test_photographs_of_a_scene_are_a_cluster_and_no_cluster_has_two_classes():
    random = np.random.default_rng(1)
    descriptors, names = scenes(random, [4, 6, 3, 5, 7])
    # Both classes show the same five scenes.
    both = np.concatenate([descriptors, descriptors])
    labels = np.repeat([0, 1], len(names))
    found = alike_clusters(looks_at(both), labels, 0.2)
    assert same(found) == same([*names, *(name + 5 for name in names)])


@pytest.mark.parametrize(("share", "clusters"), [(0.5, 2), (0.25, 4), (0.1, 10), (0.9, 2)])
def test_a_class_has_as_many_clusters_as_shares(share, clusters):
    random = np.random.default_rng(2)
    found = alike_clusters(looks_at(random.integers(0, 100, (40, 192))), np.zeros(40), share)
    assert len(set(found.tolist())) == clusters


@pytest.mark.parametrize(("count", "clusters"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_clusters_of_a_small_class_have_two_images_on_average(count, clusters):
    random = np.random.default_rng(3)
    found = alike_clusters(looks_at(random.integers(0, 100, (count, 192))), np.zeros(count), 0.1)
    assert len(set(found.tolist())) == clusters


def test_images_beyond_those_that_are_clustered_join_what_they_resemble():
    random = np.random.default_rng(4)
    descriptors, names = scenes(random, [300, 500, 400, 350, 250])
    found = alike_clusters(looks_at(descriptors), np.zeros(len(names)), 0.2)
    assert same(found) == same(names)


def test_nearness_is_how_often_a_held_out_image_is_nearer_than_a_test_image():
    random = np.random.default_rng(5)
    descriptors = random.integers(0, 100, (60, 192))
    train, held, test = np.arange(30), np.arange(30, 45), np.arange(45, 60)
    # Some held-out images are photographs of the same moment as training images.
    descriptors[held[:13]] = descriptors[train[:13]] + random.integers(0, 9, (13, 192))
    unknown = (2, 31, 50)

    def cosine(a: int, b: int) -> float:
        x, y = descriptors[a].astype(float), descriptors[b].astype(float)
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))

    def nearest(rows: np.ndarray) -> list[float]:
        known = [row for row in rows if row not in unknown]
        return [max(cosine(row, other) for other in train if other not in unknown) for row in known]

    wins = [(a > b) + (a == b) / 2 for a in nearest(held) for b in nearest(test)]
    found = nearness(looks_at(descriptors, unknown), train, held, test)
    assert found is not None
    assert found.nearer == pytest.approx(np.mean(wins))
    assert found.too_near
    swapped = nearness(looks_at(descriptors, unknown), train, test, held)
    assert swapped is not None
    assert swapped.nearer == pytest.approx(1 - np.mean(wins))
    assert (swapped.differ, swapped.too_near) == (True, False)


@pytest.mark.parametrize(
    ("nearer", "surely", "differ", "too_near"),
    [
        (0.9, 1e-6, True, True),
        (0.65, 1e-3, True, True),
        (0.64, 1e-6, True, False),
        (0.9, 0.01, False, False),
        (0.1, 1e-6, True, False),
    ],
)
def test_parts_are_too_near_if_that_is_large_and_sure(nearer, surely, differ, too_near):
    found = Nearness(nearer, surely)
    assert (found.differ, found.too_near) == (differ, too_near)


@pytest.mark.parametrize("missing", ["train", "held_out", "test"])
def test_parts_without_a_known_image_are_not_compared(missing):
    looks = looks_at(np.random.default_rng(6).integers(0, 100, (9, 192)), unknown=(0, 1, 2))
    parts = {"train": np.arange(3, 5), "held_out": np.arange(5, 7), "test": np.arange(7, 9)}
    parts[missing] = np.arange(3)
    assert nearness(looks, **parts) is None
    known = missing == "test"
    labels = np.arange(9)
    right = nearest_is_right(looks, labels, parts["train"], parts["held_out"])
    assert (right is not None) == known


def test_the_nearest_training_image_is_right_if_it_has_the_class():
    random = np.random.default_rng(7)
    descriptors = random.integers(0, 100, (20, 192))
    labels = random.integers(0, 3, 20)
    train, held = np.arange(12), np.arange(12, 20)
    for row, original in zip(held, (3, 7, 1, 0, 11, 5, 2, 9), strict=True):
        descriptors[row] = descriptors[original]
        labels[row] = labels[original] if row < 15 else labels[original] + 1
    assert nearest_is_right(looks_at(descriptors), labels, train, held) == 3 / 8


def test_what_is_together_in_any_grouping_is_together():
    random = np.random.default_rng(8)
    for _ in range(20):
        groupings = random.integers(0, 12, (2, 15))
        joined = [{position} for position in range(15)]
        for numbers in groupings:
            for a in range(15):
                for b in range(a):
                    if numbers[a] == numbers[b] and joined[a] is not joined[b]:
                        joined[a] |= joined[b]
                        for position in joined[a]:
                            joined[position] = joined[a]
        assert same(together(*groupings)) == {frozenset(each) for each in joined}


def test_copies_are_equal_bytes_or_equal_pictures():
    looks = looks_at(np.zeros((5, 192)))
    looks.thumbs[4], looks.colours[4] = looks.thumbs[1], looks.colours[1]
    digests = [b"a", b"b", b"a", b"c", b"d"]
    assert same(copies_of(looks, digests)) == {frozenset(each) for each in ({0, 2}, {1, 4}, {3})}


def test_distances_of_many_photographs_take_little_memory():
    """With single cosines of 2,000 held-out and 20,000 training images it was a gigabyte."""
    random = np.random.default_rng(3)
    looks = looks_at(random.integers(0, 127, (24_000, 192)))
    labels = random.integers(0, 50, 24_000)
    train, held, test = np.arange(20_000), np.arange(20_000, 22_000), np.arange(22_000, 24_000)
    tracemalloc.start()
    found = nearness(looks, train, held, test)
    right = nearest_is_right(looks, labels, train, held)
    alike_clusters(looks.of(train), np.zeros(len(train), np.int64), 0.2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert 0 < right < 0.1  # by chance 0.02
    assert found is not None
    assert 0.4 < found.nearer < 0.6
