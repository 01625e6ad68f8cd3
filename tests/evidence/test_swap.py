"""The swap test on networks that are built so that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.evidence import swap_test
from gsfl_tune.evidence.swap import Judge, Swappable, pairs_across_groups, pairs_inside_groups
from gsfl_tune.models import GsflHead

KINDS, MEMBERS = 3, 4
CLASSES = KINDS * MEMBERS
GROUPS = np.arange(CLASSES) // MEMBERS


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose first coordinates are the group, the others the member of it."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, size=count)
    features = np.zeros((count, KINDS + MEMBERS))
    features[np.arange(count), labels // MEMBERS] = 1
    features[np.arange(count), KINDS + labels % MEMBERS] = 1
    features += 0.05 * np.abs(generator.normal(size=features.shape))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


def head(shared: slice, discriminative: slice) -> GsflHead:
    """Each encoder passes on some coordinates, the decoder adds them up."""
    dim = KINDS + MEMBERS
    built = GsflHead(dim, CLASSES, latent_dim=dim, dropout=0.0, feature_scale=2.0).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        for encoder, kept in ((built.shared, shared), (built.discriminative, discriminative)):
            encoder[1].weight[kept, kept] = torch.eye(dim)[kept, kept]
            encoder[3].weight.copy_(torch.eye(dim))
        built.decoder[0].weight.copy_(torch.eye(dim))
        built.decoder[2].weight.copy_(torch.eye(dim))
    return built


def swapped(built: GsflHead) -> dict:
    train, train_labels = images(400, seed=0)
    features, labels = images(200, seed=1)
    with torch.no_grad():
        scaled = 2.0 * torch.from_numpy(features)
        shared, discriminative = built.shared(scaled).numpy(), built.discriminative(scaled).numpy()

    def decode(sums):
        with torch.no_grad():
            return (built.decoder(torch.from_numpy(sums)) / 2.0).numpy()

    judge = Judge(train, train_labels, GROUPS)
    network = Swappable(judge, features, shared, discriminative, decode)
    return swap_test([network, network], labels, GROUPS, pairs=300)


def test_follows_in_a_network_that_keeps_groups_and_members_apart():
    found = swapped(head(slice(0, KINDS), slice(KINDS, None)))
    assert found["judge_accuracy"] == found["judge_group_accuracy"] == 1.0
    assert found["unswapped_class"] == found["unswapped_group"] == 1.0
    assert found["group_follows_shared"] == 1.0
    assert found["group_follows_discriminative"] == 0.0
    assert found["class_follows_discriminative"] == 1.0
    assert found["class_follows_shared"] == 0.0
    assert found["pairs"] == 600
    assert found["chance_class"] == pytest.approx(1 / MEMBERS)
    assert found["chance_group"] == pytest.approx(1 / KINDS, abs=0.05)


def test_groups_follow_the_other_part_where_that_holds_everything():
    found = swapped(head(slice(0, 0), slice(None)))
    assert found["group_follows_shared"] == 0.0
    assert found["group_follows_discriminative"] == 1.0
    assert found["class_follows_discriminative"] == 1.0


def test_a_decoder_that_was_never_trained_is_seen_without_swapping():
    broken = head(slice(0, KINDS), slice(KINDS, None))
    with torch.no_grad():
        broken.decoder[2].weight.zero_()
    found = swapped(broken)
    assert found["judge_accuracy"] == 1.0
    assert found["unswapped_class"] < 0.3


def test_pairs_are_what_they_are_called():
    generator = np.random.default_rng(2)
    classes = generator.integers(0, 9, size=70)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3])
    first, second = pairs_across_groups(group[classes], 500, generator)
    assert (group[classes[first]] != group[classes[second]]).all()
    assert np.ptp(np.bincount(first, minlength=70)) <= 1
    assert len(np.unique(second)) > 60
    first, second = pairs_inside_groups(classes, group, 500, generator)
    assert (group[classes[first]] == group[classes[second]]).all()
    assert (classes[first] != classes[second]).all()
    assert set(classes[first]) == set(range(7)), "classes 7 and 8 are alone in their groups"


def test_where_no_pair_exists_there_is_no_number():
    generator = np.random.default_rng(3)
    classes = np.arange(20) % 4
    assert not len(pairs_across_groups(np.zeros(20, np.int64), 10, generator)[0])
    assert not len(pairs_inside_groups(classes, np.arange(4), 10, generator)[0])
    features, labels = images(100, seed=0)
    network = Swappable(
        Judge(features, labels, np.arange(CLASSES)), features, features, features, lambda sums: sums
    )
    found = swap_test([network], labels, np.arange(CLASSES), pairs=50)
    assert found["class_follows_discriminative"] is None
    assert found["chance_class"] is None
    assert found["group_follows_shared"] is not None
