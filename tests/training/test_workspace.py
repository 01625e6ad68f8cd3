"""What the trials of a node share is computed once, from training images alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training import Workspace

from .conftest import tiny_config


def files(folder):
    return {
        path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix == ".npy"
    }


def test_features_are_unit_vectors_of_every_image(workspace):
    features = workspace.features(tiny_config())
    assert features.shape[0] == len(workspace.dataset.pool)
    assert torch.allclose(features.norm(dim=1), torch.ones(len(features)), atol=1e-5)


def test_a_second_process_would_read_what_the_first_one_built(workspace, cache_dir):
    config = tiny_config()
    first = workspace.features(config)
    groups = workspace.groups(config)
    before = files(cache_dir / "features") | files(cache_dir / "groups")
    again = Workspace.open(config.data, cache_dir=cache_dir, device=torch.device("cpu"))
    assert torch.equal(again.features(config), first)
    assert np.array_equal(again.groups(config), groups)
    assert files(cache_dir / "features") | files(cache_dir / "groups") == before


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"image_size": 34}},
        {"model": {"backbone": "test_resnet"}},
        {"model": {"pooling": "bilinear", "pooling_channels": 4}},
    ],
    ids=["image size", "backbone", "pooling"],
)
def test_what_changes_a_feature_changes_its_key(workspace, changes):
    base = workspace.extractor(tiny_config()).key(workspace.dataset.pool)
    assert workspace.extractor(tiny_config(**changes)).key(workspace.dataset.pool) != base


def test_what_does_not_change_a_feature_keeps_its_key(workspace):
    changes = {"model": {"dropout": 0.5, "latent_dim": 8, "head": "plain"}}
    base = workspace.extractor(tiny_config()).key(workspace.dataset.pool)
    assert workspace.extractor(tiny_config(**changes)).key(workspace.dataset.pool) == base


def test_taxonomy_of_typefaces_is_their_families(workspace):
    groups = workspace.groups(tiny_config(model={"groups": {"method": "taxonomy"}}))
    families = workspace.dataset.known_groups
    for one in range(21):
        for other in range(21):
            assert (groups[one] == groups[other]) == (families[one] == families[other])


def test_a_taxonomy_file_that_lacks_classes_is_the_users_error(workspace, tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("class,group\nonly,one\n")
    config = tiny_config(model={"groups": {"method": "taxonomy", "taxonomy": str(path)}})
    with pytest.raises(UserError, match="taxonomy"):
        workspace.groups(config)


def test_a_backbone_with_another_licence_is_not_loaded(workspace):
    settings = tiny_config(
        model={"backbone": "mobilenetv2_100", "weights": "package", "licenses": ["mit"]}
    )
    with pytest.raises(UserError, match=r"model\.backbone: found mobilenetv2_100, whose weights"):
        workspace.backbone(settings)
