from __future__ import annotations

import numpy as np
import torch

from gsfl_tune.data.folds import Fold
from gsfl_tune.training.fold_workspace import FoldWorkspace
from gsfl_tune.training.training import Training
from tests.training.conftest import tiny_config


def test_features_are_computed_once_for_all_folds(workspace, cache_dir):
    config = tiny_config()
    whole = workspace.features(config)
    files = {path for path in cache_dir.rglob("*") if path.is_file() and "lock" not in path.name}
    folds = [FoldWorkspace(workspace, Fold(number, 3)) for number in range(3)]
    for fold in folds:
        assert fold.features(config).data_ptr() == whole.data_ptr()
        assert fold.backbone(config) is workspace.backbone(config)
        assert fold.extractor(config) is workspace.extractor(config)
    after = {path for path in cache_dir.rglob("*") if path.is_file() and "lock" not in path.name}
    assert {path.parent.name for path in after - files} <= {"splits"}


def test_another_recipe_in_between_gives_no_other_features(workspace):
    fold = FoldWorkspace(workspace, Fold(0, 3))
    average, gem = tiny_config(), tiny_config(model={"pooling": "gem"})
    first = fold.features(average).clone()
    other = workspace.features(gem).clone()
    assert torch.equal(fold.features(average), first)
    assert torch.equal(fold.features(gem), other)
    assert not torch.equal(first, other)


def test_a_fold_is_trained_on_its_own_images_and_validated_on_the_rest(workspace, tmp_path):
    config = tiny_config(training={"head": {"epochs": 1}})
    held: list[str] = []
    for number in range(3):
        fold = FoldWorkspace(workspace, Fold(number, 3))
        training = Training(config, fold, tmp_path / str(number))
        training.run_epoch()
        training.save()
        assert training.validated is not None
        held += training.validated.paths
        trained = {fold.dataset.pool.paths[each] for each in training.context.train_positions}
        assert not trained & set(training.validated.paths)
        assert len(trained) + len(training.validated.paths) == len(fold.dataset.pool)
    assert sorted(held) == sorted(workspace.dataset.pool.paths)
    # A checkpoint of another fold is not continued.
    other = Training(config, FoldWorkspace(workspace, Fold(1, 3)), tmp_path / "0")
    assert not other.restore()


def test_class_groups_follow_from_the_training_images_of_the_fold(workspace):
    config = tiny_config(model={"groups": {"count": 3, "method": "kmeans"}})
    for number in range(2):
        fold = FoldWorkspace(workspace, Fold(number, 2))
        groups = fold.groups(config)
        assert groups.shape == (fold.dataset.class_count,)
        assert set(groups.tolist()) == {0, 1, 2}
    assert not np.array_equal(fold.dataset.train_index, workspace.dataset.train_index)
