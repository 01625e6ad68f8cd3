from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsfl_tune.data import prepare
from gsfl_tune.data.folds import Fold, fold_of, make_folds
from gsfl_tune.experiment.data_config import SplitConfig
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save
from tests.data.test_held_out import scene

NAMES = ["ant", "bee", "cow", "dog"]


def digest(number: int) -> bytes:
    return f"{number:016d}".encode()


def folds(labels, units=None, count=3, **options):
    digests = [digest(number) for number in range(len(labels))]
    units = digests if units is None else units
    return make_folds(labels, digests, units, count, **{"seed": 0, "classes": NAMES, **options})


def test_every_class_is_divided_evenly():
    labels = [0] * 20 + [1] * 11 + [2] * 5
    found = folds(labels, count=5)
    for label, sizes in ((0, {4}), (1, {2, 3}), (2, {1})):
        counts = np.bincount(found[np.asarray(labels) == label], minlength=5)
        assert set(counts.tolist()) == sizes
    # What is left over of the classes does not all go to one fold.
    assert np.ptp(np.bincount(found)) <= 1


def test_the_seed_alone_decides_and_not_the_order_of_the_images():
    labels = [0] * 12 + [1] * 12
    digests = [digest(number) for number in range(24)]
    first = make_folds(labels, digests, digests, 3, seed=1, classes=NAMES)
    order = np.random.default_rng(0).permutation(24)
    shuffled = make_folds(
        [labels[place] for place in order],
        [digests[place] for place in order],
        [digests[place] for place in order],
        3,
        seed=1,
        classes=NAMES,
    )
    np.testing.assert_array_equal(shuffled, first[order])
    assert (make_folds(labels, digests, digests, 3, seed=2, classes=NAMES) != first).any()


@settings(deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14)), min_size=4, max_size=80),
    count=st.integers(2, 4),
    mixed=st.booleans(),
    seed=st.integers(0, 3),
)
def test_groups_never_straddle_folds(images, count, mixed, seed):
    """Of any images: animals of one class, and photographs with several."""
    labels = [label for label, _ in images]
    units = [unit if mixed else (label, unit) for label, unit in images]
    try:
        found = folds(labels, units, count, seed=seed)
    except UserError:
        # A class has too few groups: see below.
        return
    by_unit: dict[object, set[int]] = {}
    for unit, number in zip(units, found.tolist(), strict=True):
        by_unit.setdefault(unit, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_unit.values())
    assert set(found.tolist()) == set(range(count))
    for number in range(count):
        left = np.bincount(np.asarray(labels)[found != number], minlength=3)
        assert all(left[label] >= 2 for label in set(labels))
        if not mixed:
            # Every class is validated in every fold.
            assert set(np.asarray(labels)[found == number]) == set(labels)


def test_more_folds_than_images_or_groups_of_a_class_are_refused():
    with pytest.raises(UserError) as error:
        folds([0] * 9 + [1] * 4 + [2] * 3, count=5)
    assert str(error.value) == (
        "search.folds: found 5, allowed at most 3: 2 classes have fewer images, or groups of "
        "images that stay together, than folds: bee (4), cow (3)"
    )
    with pytest.raises(UserError, match=r"allowed at most 2: 1 class has .*: bee \(2\)"):
        folds([0] * 6 + [1] * 6, [*range(6), 6, 6, 6, 7, 7, 7], count=3)
    with pytest.raises(UserError, match=r"allowed none with these images: .*: bee \(1\)"):
        folds([0] * 6 + [1], count=2)


def test_a_class_is_not_left_with_one_image_to_train_on():
    with pytest.raises(UserError) as error:
        folds([0] * 6 + [1] * 4, [*range(6), 6, 6, 6, 7], count=2)
    assert str(error.value) == (
        "search.folds: found 2, but without one of the folds 1 class has fewer than 2 images to "
        "train on: bee (1); allowed other folds, or a data.split.by whose groups are smaller"
    )


def test_a_class_whose_images_all_belong_together_is_always_trained_on():
    found = folds([0] * 6 + [1] * 4, [*range(6), 9, 9, 9, 9], count=3, crowded={1})
    assert set(found[:6].tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(found[6:], -1)


def test_the_folds_of_files_are_disjoint_and_keep_the_test_part(tmp_path, cache):
    fill(tmp_path / "images", {"ant": 20, "bee": 13})
    dataset = prepare(configure("folder", tmp_path / "images"), cache_dir=cache)
    parts = [fold_of(dataset, Fold(number, 4)) for number in range(4)]
    held = [part.split.validation for part in parts]
    pool = np.concatenate([dataset.split.train, dataset.split.validation])
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.sort(pool))
    for part in parts:
        assert not set(part.split.train) & set(part.split.validation)
        np.testing.assert_array_equal(part.split.test, dataset.split.test)
        assert len(part.train_index) + len(part.validation_index) == len(pool)
        paths = {part.pool.paths[place] for place in part.validation_index}
        assert len(paths) == len(part.split.validation)
        # The same images in the same order: whatever was computed of them is shared.
        assert part.pool.digest == dataset.pool.digest
        assert part.test.digest == dataset.test.digest
    # A checkpoint of one fold is not one of another, or of the split.
    assert len({dataset.digest, *(part.digest for part in parts)}) == 5
    again = fold_of(prepare(configure("folder", tmp_path / "images"), cache_dir=cache), Fold(1, 4))
    assert again.digest == parts[1].digest


def test_images_of_one_animal_share_a_fold(tmp_path, cache):
    rows = ["file,label,animal"]
    for number in range(48):
        name = "ant" if number < 24 else "bee"
        save(tmp_path / f"{number}.png", number)
        # Two animals have images of both classes.
        animal = "both" if number in (3, 30) else f"{name}{number // 3}"
        rows.append(f"{number}.png,{name},{animal}")
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    config = configure(
        "csv",
        tmp_path / "rows.csv",
        image_column="file",
        label_column="label",
        group_column="animal",
    )
    dataset = prepare(config, cache_dir=cache)
    animals: dict[str, set[int]] = {}
    of_file = {row.split(",")[0]: row.split(",")[2] for row in rows[1:]}
    for number in range(3):
        part = fold_of(dataset, Fold(number, 3))
        for place in part.validation_index:
            file = part.pool.paths[place].rpartition("/")[2]
            animals.setdefault(of_file[file], set()).add(number)
    assert len(animals) > 6
    assert all(len(numbers) == 1 for numbers in animals.values())


def test_copies_of_other_size_and_quality_share_a_fold(tmp_path, cache):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(15):
            image = scene(100 * label + number)
            image.save(tmp_path / "images" / name / f"{number:02d}.png")
            small = image.resize((100, 75))
            small.save(tmp_path / "images" / name / f"{number:02d}-small.jpg", quality=60)
    dataset = prepare(configure("folder", tmp_path / "images"), cache_dir=cache)
    pictures: dict[str, set[int]] = {}
    for number in range(4):
        part = fold_of(dataset, Fold(number, 4))
        for place in part.validation_index:
            picture = part.pool.paths[place].replace("-small.jpg", "").replace(".png", "")
            pictures.setdefault(picture, set()).add(number)
    assert len(pictures) == len(dataset.pool) / 2
    assert all(len(numbers) == 1 for numbers in pictures.values())


def test_a_given_validation_part_is_refused_and_joins_with_resplit(tmp_path, cache):
    fill(tmp_path / "train", {"ant": 8, "bee": 8})
    fill(tmp_path / "val", {"ant": 4, "bee": 4}, seed=500)
    dataset = prepare(configure("folder", tmp_path), cache_dir=cache)
    with pytest.raises(UserError) as error:
        fold_of(dataset, Fold(0, 3))
    assert str(error.value) == (
        "search.folds: found 3, but the source has a validation part of its own; allowed nothing, "
        "or data.split.validation: resplit, which joins it with the training images"
    )
    joined = configure("folder", tmp_path, split=SplitConfig(validation="resplit"))
    dataset = prepare(joined, cache_dir=cache)
    sizes = [len(fold_of(dataset, Fold(number, 3)).validation_index) for number in range(3)]
    assert sum(sizes) == len(dataset.pool)
