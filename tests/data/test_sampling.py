"""What an epoch shows, what an image weighs, and trainings on few images of each class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from gsfl_tune.data import Augment, epoch_batches, prepare
from gsfl_tune.data.sampling import class_weights, epoch_positions, log_priors
from gsfl_tune.experiment.data_config import AugmentConfig
from tests.data.conftest import configure, fill, save

# Of class 1 more images than of the others together.
SIZES = (40, 170, 9, 1)
LABELS = np.repeat(np.arange(4), SIZES)[np.random.default_rng(0).permutation(sum(SIZES))]
POSITIONS = np.arange(len(LABELS))


def shown(balance, epochs=1):
    counts = np.zeros((epochs, len(LABELS)), np.int64)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        drawn = epoch_positions(POSITIONS, LABELS, generator, balance=balance)
        assert len(drawn) == len(POSITIONS)
        counts[epoch] = np.bincount(drawn, minlength=len(LABELS))
    return counts


def test_without_balance_every_image_is_shown_once_an_epoch():
    counts = shown(0, epochs=3)
    assert (counts == 1).all()


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_classes_get_their_share_of_every_epoch(balance):
    shares = np.array(SIZES) ** (1 - balance)
    wanted = shares / shares.sum() * len(LABELS)
    counts = shown(balance, epochs=200)
    of_class = np.stack([counts[:, label == LABELS].sum(1) for label in range(4)], 1)
    assert (np.abs(of_class - wanted) < 1).all()
    # What an epoch rounds, others make good: the mean is the share.
    assert of_class.mean(0) == pytest.approx(wanted, abs=0.15)


def test_images_of_a_class_are_shown_equally_often():
    counts = shown(1.0, epochs=100)
    for label in range(4):
        own = counts[:, label == LABELS]
        assert (own.max(1) - own.min(1) <= 1).all()
        # None of a frequent class is forgotten.
        assert own.sum(0).min() > 0


def test_batches_are_as_balanced_as_the_configuration_says(tmp_path):
    root = fill(tmp_path / "images", {"frequent": 60, "rare": 10})
    dataset = prepare(configure("folder", root), cache_dir=tmp_path / "cache")

    def labels(**how):
        batches = epoch_batches(
            dataset.pool,
            dataset.train_index,
            8,
            seed=1,
            epoch=0,
            transform=Augment(AugmentConfig(), 16, (0.5,) * 3, (0.25,) * 3),
            device="cpu",
            **how,
        )
        return np.concatenate([each.labels.numpy() for each in batches])

    assert labels().mean() < 0.2
    assert labels(balance=1.0).mean() == pytest.approx(0.5, abs=0.1)


def test_priors_are_shares_of_the_images():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    found = np.exp(log_priors(labels, 4))
    # Class 2 has no image: it counts as if it had one.
    assert found == pytest.approx(np.array([6, 3, 1, 1]) / 11)


def test_class_weights_are_those_of_scikit_learn():
    ours = class_weights(LABELS, 5, 1.0)
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=LABELS)
    # Theirs has a mean of 1 over the images too; the class without images is ours alone.
    assert ours == pytest.approx([*theirs, 0], rel=1e-6)
    assert class_weights(LABELS, 4, 0.0) == pytest.approx(np.ones(4))
    root = class_weights(LABELS, 4, 0.5)
    assert root[LABELS].mean() == pytest.approx(1, rel=1e-6)
    assert root[3] / root[0] == pytest.approx(np.sqrt(SIZES[0] / SIZES[3]), rel=1e-5)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", {"a": 30, "b": 30, "c": 5})


def few(folder, shots, **values):
    config = configure("folder", folder, shots=shots, **values)
    return prepare(config, cache_dir=folder.parent / "cache")


def names(dataset, index):
    return {dataset.pool.paths[position] for position in index.tolist()}


def test_shots_are_as_many_of_each_class_and_leave_the_other_parts_whole(folder):
    whole, some = few(folder, None), few(folder, 4)
    labels = some.pool.labels[some.train_index]
    # Class c has three training images.
    assert np.bincount(labels).tolist() == [4, 4, 3]
    assert names(some, some.validation_index) == names(whole, whole.validation_index)
    assert some.test.paths == whole.test.paths
    assert some.digest != whole.digest
    assert some.final_index.tolist() == some.train_index.tolist()
    assert len(whole.final_index) == len(whole.pool)
    [told] = [line for line in some.notices if "data.shots" in line]
    assert f"{len(whole.train_index) - 11} others take no part" in told
    assert "1 of 3 classes have no more" in told
    assert some.summary()["spare"] == len(whole.train_index) - 11


def test_fewer_shots_are_a_part_of_more_and_another_seed_chooses_others(folder):
    chosen = {shots: names(few(folder, shots), few(folder, shots).train_index) for shots in (1, 5)}
    assert chosen[1] < chosen[5]
    one = few(folder, 5, split={"seed": 3})
    assert names(one, one.train_index) != chosen[5]


def test_copies_are_chosen_last(tmp_path):
    root = fill(tmp_path / "images", {"a": 12, "b": 12})
    for copy in range(40):
        save(root / "a" / f"copy-{copy}.png", 7)  # those of one picture
    some = few(root, 5, split={"by": "image"})
    own = [p for p in names(some, some.train_index) if "/a/" in p or p.startswith("a/")]
    assert len(own) == 5
    assert sum("copy-" in path or path.endswith("007.png") for path in own) <= 1
