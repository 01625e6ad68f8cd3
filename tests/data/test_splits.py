from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsfl_tune.data.duplicates import find_duplicates
from gsfl_tune.data.grouping import Grouping
from gsfl_tune.data.splits import divide, size_problems
from gsfl_tune.data.units import crowded
from gsfl_tune.experiment.data_config import SplitConfig


def digest(number: int) -> bytes:
    return f"{number:016d}".encode()


def listing(per_class: int, classes: int = 3):
    labels = [label for label in range(classes) for _ in range(per_class)]
    return labels, [digest(number) for number in range(len(labels))]


def of(positions, values):
    return [values[position] for position in positions]


def test_each_class_gives_its_share():
    labels, digests = listing(50)
    split = divide(labels, [None] * 150, digests, SplitConfig(validation=0.25, test=0.2))
    np.testing.assert_array_equal(np.bincount(of(split.test, labels)), [10] * 3)
    np.testing.assert_array_equal(np.bincount(of(split.validation, labels)), [10] * 3)
    np.testing.assert_array_equal(np.bincount(of(split.train, labels)), [30] * 3)
    assert not split.given_test
    assert not split.given_validation


def test_the_seed_alone_decides_and_not_the_order_of_the_files():
    labels, digests = listing(30)
    parts = [None] * len(labels)
    first = divide(labels, parts, digests, SplitConfig(seed=1))
    again = divide(labels, parts, digests, SplitConfig(seed=1))
    other = divide(labels, parts, digests, SplitConfig(seed=2))
    np.testing.assert_array_equal(first.validation, again.validation)
    assert set(of(first.test, digests)) != set(of(other.test, digests))
    assert set(of(first.validation, digests)) != set(of(other.validation, digests))
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = divide(of(order, labels), parts, of(order, digests), SplitConfig(seed=1))
    for part in ("train", "validation", "test"):
        assert set(of(getattr(shuffled, part), of(order, digests))) == set(
            of(getattr(first, part), digests)
        )


def test_an_added_image_hardly_moves_the_others():
    labels, digests = listing(50)
    split = divide(labels, [None] * 150, digests, SplitConfig())
    more = divide([*labels, 0], [None] * 151, [*digests, digest(999)], SplitConfig())
    assert len(set(split.test.tolist()) ^ set(more.test.tolist())) <= 2


PARTS = st.sampled_from([None, "train", "validation", "test"])


@given(
    images=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12), PARTS), min_size=1, max_size=60
    ),
    seed=st.integers(0, 5),
)
def test_identical_images_never_straddle_a_split(images, seed):
    labels, numbers, parts = zip(*images, strict=True)
    digests = [digest(number) for number in numbers]
    split = divide(labels, parts, digests, SplitConfig(seed=seed))
    sets = [set(of(getattr(split, part), digests)) for part in ("train", "validation", "test")]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    every = np.concatenate([split.train, split.validation, split.test, split.dropped])
    np.testing.assert_array_equal(np.sort(every), np.arange(len(images)))
    # What the source gave as test stays test.
    assert {i for i, part in enumerate(parts) if part == "test"} <= set(
        split.test.tolist()
    ) or not (split.given_test)
    if not split.given_test and not split.given_validation:
        assert not len(split.dropped)


def test_a_training_image_that_a_given_test_part_has_too_is_dropped():
    labels = [0, 0, 0, 0, 1, 1, 1, 0, 1]
    parts = ["train"] * 7 + ["test"] * 2
    digests = [digest(n) for n in (0, 1, 2, 3, 4, 5, 6, 2, 7)]
    split = divide(labels, parts, digests, SplitConfig())
    assert split.dropped.tolist() == [2]
    assert split.test.tolist() == [7, 8]
    assert split.given_test
    found = find_duplicates([f"p{n}" for n in range(9)], labels, digests, split)
    assert found.groups == [["p2", "p7"]]
    assert found.dropped == ["p2"]
    assert found.conflicting == []


def test_a_given_validation_part_is_kept_and_loses_only_twins_of_the_test():
    labels = [0, 0, 0, 0, 0, 0]
    parts = ["train", "train", "validation", "validation", "test", "train"]
    digests = [digest(n) for n in (0, 1, 0, 5, 5, 9)]
    split = divide(labels, parts, digests, SplitConfig())
    assert split.validation.tolist() == [2]
    assert split.train.tolist() == [1, 5]
    assert split.dropped.tolist() == [0, 3]
    assert split.given_validation


def test_a_given_validation_part_without_a_test_part():
    labels, digests = listing(20)
    parts = ["validation" if n % 20 < 4 else "train" for n in range(60)]
    split = divide(labels, parts, digests, SplitConfig(test=0.25))
    assert np.bincount(of(split.validation, labels)).tolist() == [4, 4, 4]
    assert np.bincount(of(split.test, labels)).tolist() == [4, 4, 4]
    assert np.bincount(of(split.train, labels)).tolist() == [12, 12, 12]


def test_twins_with_different_labels_are_reported():
    split = divide([0, 1, 0], [None] * 3, [digest(0), digest(0), digest(1)], SplitConfig())
    found = find_duplicates(["a", "b", "c"], [0, 1, 0], [digest(0), digest(0), digest(1)], split)
    assert found.conflicting == [["a", "b"]]


@pytest.mark.parametrize("per_class", [4, 5, 6])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_small_classes_keep_what_training_needs(per_class, share):
    labels, digests = listing(per_class)
    config = SplitConfig(validation=share, test=share)
    split = divide(labels, [None] * len(labels), digests, config)
    assert not size_problems(
        ["a", "b", "c"],
        of(split.train, labels),
        of(split.validation, labels),
        of(split.test, labels),
    )


def test_classes_that_are_too_small_are_named():
    names = [f"class {number}" for number in range(14)]
    every = list(range(14))
    assert size_problems(names, every * 2, every, None) == []
    problems = size_problems(names, [0, 0, 1], [0, 1], [0])
    assert problems == [
        "12 classes have no images: class 2, class 3, class 4, class 5, class 6, class 7, class 8, "
        "class 9, class 10, class 11 and 2 more",
        "1 class has fewer than 2 different training images: class 1 (1)",
        "1 class has fewer than 1 different test image: class 1 (0)",
    ]
    assert "at least 2 classes" in size_problems(["one"], [0, 0], [0], None)[0]


def test_one_image_is_enough_for_who_asks_for_one():
    one = ["a", "b"], [0, 1], [0, 1], None
    assert size_problems(*one)
    assert size_problems(*one, least_training=1) == []


def test_a_class_without_training_images_is_told_why():
    names = ["whole", "tested", "copied", "short", "nothing"]
    problems = size_problems(
        names, [0, 0, 3], [0, 3], None, given_test=[0, 1, 1, 2], dropped=[2, 2, 2, 3]
    )
    assert problems == [
        "1 class has no images: nothing",
        "1 class has images in the given test part only: tested (2)",
        "1 class has no training image left, as each has a copy in the given test or validation "
        "part, where it stays: copied (3)",
        "1 class has fewer than 2 different training images: short (1, and 1 left out as copies of "
        "the given test or validation part)",
    ]


def grouped(units):
    units = np.asarray(units)
    return Grouping(np.arange(len(units)), units)


def test_units_are_held_out_whole():
    labels, digests = listing(40)
    units = [label * 100 + place // 2 for label in range(3) for place in range(40)]
    split = divide(labels, [None] * 120, digests, SplitConfig(), grouped(units))
    parts = [split.train, split.validation, split.test]
    of_parts = [set(of(part, units)) for part in parts]
    assert sum(map(len, of_parts)) == len(set.union(*of_parts)) == 60
    np.testing.assert_array_equal(np.bincount(of(split.test, labels)), [8] * 3)
    np.testing.assert_array_equal(np.bincount(of(split.validation, labels)), [6] * 3)


def test_units_of_single_images_are_divided_as_without_units():
    labels, digests = listing(25)
    parts = [None] * 75
    plain = divide(labels, parts, digests, SplitConfig(seed=4))
    units = divide(labels, parts, digests, SplitConfig(seed=4), grouped(range(75)))
    np.testing.assert_array_equal(plain.validation, units.validation)
    np.testing.assert_array_equal(plain.test, units.test)


def test_units_of_several_classes_are_held_out_whole():
    # Thirty animals' owners, each with photographs of all three classes.
    labels, digests = listing(60)
    units = [place // 2 for _ in range(3) for place in range(60)]
    split = divide(labels, [None] * 180, digests, SplitConfig(seed=1), grouped(units))
    held = [set(of(part, units)) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, held)) == len(set.union(*held)) == 30
    for part, share in ((split.test, 0.2), (split.validation, 0.16)):
        counts = np.bincount(of(part, labels))
        assert counts.min() >= 0.8 * share * 60
        assert counts.max() <= 1.3 * share * 60
    other = divide(labels, [None] * 180, digests, SplitConfig(seed=2), grouped(units))
    assert set(other.test) != set(split.test)


def test_a_class_of_one_unit_stays_in_training():
    labels, digests = listing(20)
    units = [*range(40), *[99] * 20]
    split = divide(labels, [None] * 60, digests, SplitConfig(), grouped(units))
    assert np.bincount(of(split.train, labels)).tolist()[2] == 20
    assert crowded(np.array(units), np.array(labels)) == [2]


@pytest.mark.parametrize("seed", range(4))
def test_of_a_class_with_large_units_the_smallest_is_held_out(seed):
    # All are far larger than a tenth of the images; numbers of units say nothing.
    labels, digests = listing(20, classes=2)
    units = [*[50] * 9, *[40] * 11, *[60] * 11, *[70] * 9]
    config = SplitConfig(test=0.05, validation=0.05, seed=seed)
    split = divide(labels, [None] * 40, digests, config, grouped(units))
    assert set(of(split.test, units)) == {50, 70}
    # Of each class one unit is left, for training.
    assert set(of(split.train, units)) == {40, 60}
    assert not len(split.validation)


@pytest.mark.parametrize("seed", range(8))
def test_a_large_unit_is_not_held_out_if_training_needs_it(seed):
    parts = [None] * 4 + ["test"]
    config = SplitConfig(validation=0.9, seed=seed)
    digests = [digest(number) for number in range(5)]
    split = divide([0] * 5, parts, digests, config, grouped([0, 0, 0, 1, 2]))
    assert split.validation.tolist() == [3]
    assert split.train.tolist() == [0, 1, 2]


def test_one_unit_of_all_classes_stays_in_training():
    labels, digests = listing(6)
    split = divide(labels, [None] * 18, digests, SplitConfig(), grouped([5] * 18))
    assert len(split.train) == 18


def test_a_class_with_fewer_images_than_parts_of_units_prints_no_warning(recwarn):
    labels = [*[0] * 40, *[1] * 40, *[2] * 2]
    units = [*range(40), *range(40), 0, 7]
    digests = [digest(number) for number in range(82)]
    split = divide(labels, [None] * 82, digests, SplitConfig(), grouped(units))
    assert len(split.test)
    assert not recwarn.list


def test_copies_of_a_given_test_part_are_left_out_of_training():
    labels, digests = listing(20)
    parts = [None] * 59 + ["test"]
    copies = np.arange(60)
    copies[59] = copies[41]
    grouping = Grouping(copies, np.arange(60))
    split = divide(labels, parts, digests, SplitConfig(), grouping)
    assert split.dropped.tolist() == [41]
    assert split.test.tolist() == [59]
