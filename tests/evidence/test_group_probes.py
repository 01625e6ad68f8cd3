"""Probes for groups: known answers, and chance where there is nothing to know."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.evidence import group_probes
from gsfl_tune.evidence.ridge import probe_accuracy, stratified_folds
from gsfl_tune.evidence.trained import spread_index

GROUPS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
LABELS = np.arange(300) % 10


def knowing(answers: np.ndarray, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(int(answers.max()) + 1, 24))
    return directions[answers] + noise * generator.normal(size=(len(answers), 24))


def test_a_part_that_knows_groups_alone_is_told_from_one_that_knows_classes():
    parts = {
        "s": [knowing(GROUPS[LABELS], seed=seed) for seed in range(2)],
        "d": [knowing(LABELS)],
        "f": [np.random.default_rng(3).normal(size=(300, 24))],
    }
    found = group_probes(parts, LABELS, GROUPS)
    rows = {row["part"]: row for row in found["parts"]}
    assert found["chance"] == pytest.approx(0.4)
    assert rows["s"]["groups"]["mean"] > 0.98
    assert rows["s"]["random_groups"]["mean"] < 0.7
    assert rows["d"]["groups"]["mean"] > 0.98
    assert rows["d"]["random_groups"]["mean"] > 0.98
    assert rows["f"]["groups"]["mean"] == pytest.approx(0.4, abs=0.1)
    assert rows["d"]["groups"]["std"] == 0.0
    assert found == group_probes(parts, LABELS, GROUPS)


def test_shuffled_groups_of_real_features_are_at_chance(workspace, retrained):
    labels = workspace.dataset.pool.labels
    trained = retrained()
    model = next(trained.models(workspace, 1))
    # Of the images that it was trained on: d knows a lot about them.
    features = model.latents("pool", np.arange(len(labels))).discriminative
    groups = workspace.groups(trained.config)[labels]
    folds = stratified_folds(labels, seed=0)
    generator = np.random.default_rng(0)
    shuffled = np.stack([generator.permutation(groups) for _ in range(20)])
    found = probe_accuracy(features, np.stack([groups, *shuffled]), folds)
    constant = np.bincount(groups).max() / len(labels)
    spread = np.sqrt(constant * (1 - constant) / len(labels))
    assert found[1:].mean() < constant + spread
    assert found[1:].mean() > 1 / (groups.max() + 1) - spread
    assert found[0] > found[1:].max() + spread


def test_a_single_group_is_no_question():
    with pytest.raises(ValueError, match="two groups"):
        group_probes({"f": [np.ones((4, 2))]}, [0, 1, 0, 1], [0, 0])


def test_tables_that_are_the_same_have_no_deviation():
    """A frozen backbone gives every seed the same feature."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    table = generator.normal(size=(40, 3)) + labels[:, None]
    found = group_probes({"f": [table] * 3}, labels, [0, 0, 1, 1])["parts"][0]
    assert found["groups"]["std"] == 0
    assert found["random_groups"]["std"] > 0


def test_a_subset_takes_evenly_from_all_classes():
    labels = np.repeat(np.arange(4), [50, 3, 20, 20])
    index = spread_index(labels, 40)
    assert len(index) == 40
    assert (np.diff(index) > 0).all()
    assert np.bincount(labels[index])[1] == 3
    assert np.ptp(np.bincount(labels[index])[[0, 2, 3]]) <= 1
    assert len(spread_index(labels, 1000)) == len(labels)
