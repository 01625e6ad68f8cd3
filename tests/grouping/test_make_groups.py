import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from gsfl_tune.grouping import GROUPINGS, confusion_matrix, held_out_posteriors, make_groups
from gsfl_tune.grouping._base import fill_empty_groups

CLASSES, GROUPS, IMAGES, DIM = 24, 4, 12, 40


def planted(noise: float, seed: int = 0, classes: int = CLASSES, images: int = IMAGES):
    """Unit features of classes around group directions, group of every class."""
    generator = np.random.default_rng(seed)
    truth = generator.permutation(classes) % GROUPS
    centers = generator.normal(size=(GROUPS, DIM))[truth]
    centers += 0.4 * generator.normal(size=(classes, DIM))
    labels = generator.permutation(np.repeat(np.arange(classes), images))
    features = centers[labels] + noise * generator.normal(size=(len(labels), DIM))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), labels, truth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["kmeans", "spectral", "agglomerative"])
def test_planted_groups_are_recovered(method, seed):
    features, labels, truth = planted(0.3, seed)
    groups = make_groups(method, GROUPS, features, labels, CLASSES, seed=seed)
    assert adjusted_rand_score(truth, groups) == 1


@pytest.mark.parametrize("method", ["spectral", "agglomerative"])
def test_planted_confusions_are_recovered_where_means_mislead(method):
    """Class means lie far apart in noisy directions, which a classifier learns to ignore."""
    generator = np.random.default_rng(0)
    classes, images = 12, 40
    truth = generator.permutation(classes) % 6
    centers = np.zeros((classes, 12))
    centers[np.arange(classes), truth] = 1.0
    centers[:, 6] = 0.1 * generator.normal(size=classes)  # tells those of a group apart, hardly
    centers[:, 7:11] = generator.normal(size=(classes, 4))
    centers[:, 11] = 20.0  # unit length takes nothing from the other directions
    labels = np.repeat(np.arange(classes), images)
    noise = np.array([0.15] * 7 + [3.0] * 4 + [0.0])
    features = centers[labels] + noise * generator.normal(size=(len(labels), 12))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    confusions = confusion_matrix(held_out_posteriors(features, labels, classes), labels)
    same = truth[:, None] == truth
    off = ~np.eye(classes, dtype=bool)
    assert confusions[same & off].mean() > 10 * confusions[~same].mean()
    misled = make_groups("kmeans", 6, features, labels, classes)
    assert adjusted_rand_score(truth, misled) < 0.5
    groups = make_groups(method, 6, features, labels, classes)
    assert adjusted_rand_score(truth, groups) == 1


def test_confusions_are_held_out_and_honest():
    features, labels, _ = planted(0.3)
    shuffled = np.random.default_rng(1).permutation(labels)
    chance = confusion_matrix(held_out_posteriors(features, shuffled, CLASSES), shuffled)
    assert np.allclose(chance.sum(1), 1)
    assert np.diag(chance).mean() < 3 / CLASSES
    learned = confusion_matrix(held_out_posteriors(features, labels, CLASSES), labels)
    assert np.diag(learned).mean() > 0.5


@pytest.mark.parametrize("method", [g.name for g in GROUPINGS])
def test_every_method_numbers_by_first_class_and_repeats(method):
    features, labels, truth = planted(0.5)
    taxonomy = [f"family {t}" for t in truth]

    def group(seed):
        return make_groups(method, GROUPS, features, labels, CLASSES, seed=seed, taxonomy=taxonomy)

    groups = group(0)
    assert groups.dtype == np.int64
    assert groups.shape == (CLASSES,)
    _, first = np.unique(groups, return_index=True)
    assert list(first) == sorted(first)
    assert set(groups) == set(range(1 if method == "single" else GROUPS))
    assert np.array_equal(groups, group(0))


@pytest.mark.parametrize("method", ["kmeans", "spectral", "agglomerative", "random"])
@pytest.mark.parametrize("count", [1, 2, CLASSES - 1, CLASSES])
def test_count_is_what_was_asked_for(method, count):
    features, labels, _ = planted(0.5)
    groups = make_groups(method, count, features, labels, CLASSES)
    assert len(set(groups)) == count
    with pytest.raises(ValueError, match=f"{CLASSES + 1} groups of {CLASSES}"):
        make_groups(method, CLASSES + 1, features, labels, CLASSES)
    with pytest.raises(ValueError, match="0 groups"):
        make_groups(method, 0, features, labels, CLASSES)


@pytest.mark.parametrize("method", ["kmeans", "spectral", "agglomerative"])
def test_classes_that_coincide_still_fill_every_group(method):
    labels = np.repeat(np.arange(6), 4)
    features = np.zeros((24, 3), np.float32)
    features[:, 0] = 1
    assert set(make_groups(method, 4, features, labels, 6)) == {0, 1, 2, 3}


@pytest.mark.parametrize("method", ["spectral", "agglomerative"])
def test_classes_with_one_image_are_grouped_too(method):
    features, labels, _ = planted(0.3)
    first = np.flatnonzero(labels == 3)[1:]
    features, labels = np.delete(features, first, axis=0), np.delete(labels, first)
    groups = make_groups(method, GROUPS, features, labels, CLASSES)
    assert len(set(groups)) == GROUPS
    pair = np.isin(labels, (3, 4))
    two = make_groups(method, 1, features[pair], labels[pair] - 3, 2)
    assert two.tolist() == [0, 0]


def test_high_dimensions_are_reduced_first():
    features, labels, truth = planted(0.3, classes=40)
    generator = np.random.default_rng(0)
    wide = (features @ generator.normal(size=(DIM, 3000)) / 50).astype(np.float32)
    groups = make_groups("agglomerative", GROUPS, wide, labels, 40)
    assert adjusted_rand_score(truth, groups) == 1


def test_random_groups_are_balanced_and_seeded():
    none = np.empty((0, 1), np.float32), np.empty(0, np.int64)
    groups = make_groups("random", 5, *none, 23, seed=1)
    assert sorted(np.bincount(groups)) == [4, 4, 5, 5, 5]
    assert not np.array_equal(groups, make_groups("random", 5, *none, 23, seed=2))


def test_what_cannot_be_grouped_is_refused():
    features, labels, _ = planted(0.3)
    for method in ("kmeans", "spectral", "agglomerative"):
        with pytest.raises(ValueError, match="class 24 has no training image"):
            make_groups(method, 3, features, labels, CLASSES + 1)
    with pytest.raises(ValueError, match="at least two training images"):
        make_groups("spectral", 2, features[:4], np.arange(4), 4)
    with pytest.raises(ValueError, match=r"model\.groups\.taxonomy"):
        make_groups("taxonomy", 3, features, labels, CLASSES)
    with pytest.raises(ValueError, match="allowed are kmeans"):
        make_groups("nearest", 3, features, labels, CLASSES)


def test_groups_that_are_missing_come_off_the_end_of_the_largest():
    # Group 0 has the classes 0, 2, 3 and 5: its last one is split off, then the next.
    found = fill_empty_groups(np.array([4, 1, 4, 4, 1, 4]), 4)
    assert found.tolist() == [0, 1, 0, 3, 1, 2]
    # Of two that are equally large the first gives.
    assert fill_empty_groups(np.array([0, 1, 0, 1]), 3).tolist() == [0, 1, 2, 1]
