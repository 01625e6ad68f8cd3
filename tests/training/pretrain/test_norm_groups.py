"""Batch norms of `moco`: a query and its key are not normalised with the same images."""

from __future__ import annotations

import copy

import pytest
import torch

from gsfl_tune.experiment import UserError
from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.training.pretrain import starting_backbone
from gsfl_tune.training.pretrain.network import PretrainingNetwork
from gsfl_tune.training.pretrain.norm_groups import shuffled, statistics
from tests.training.conftest import tiny_config
from tests.training.pretrain.conftest import network_of, section, seeded
from tests.training.pretrain.test_pretraining import start

COUNT = 16


def pair(count=COUNT):
    one = torch.randn(count, 3, 32, 32, generator=seeded(3))
    return one, one + 0.3 * torch.randn(one.shape, generator=seeded(4))


def depends(network, views, view):
    """Which images (column) the loss of the queries or the keys themselves (row) depend on."""
    seen = [each.clone() for each in views]
    network.train()
    found = []

    def outputs(changed):
        module = copy.deepcopy(network)
        if view == 0:
            return module._maps(module.backbone, changed).mean(dim=(2, 3)).detach()
        return module._taught([changed, changed])[0]

    before = outputs(seen[view])
    for image in range(len(seen[view])):
        changed = seen[view].clone()
        changed[image] += 1
        found.append((outputs(changed) - before).abs().amax(1) > 1e-6)
    return torch.stack(found, 1)


@pytest.mark.parametrize("groups", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_statistics_of_a_key_are_of_other_images_than_those_of_its_query(groups):
    network = network_of(method="moco", norm_groups=groups)
    queries, keys = (depends(network, pair(), view) for view in (0, 1))
    size = COUNT // groups
    # In groups, and each image in its own.
    assert (queries.sum(1) == size).all()
    assert (keys.sum(1) == size).all()
    assert queries.diagonal().all()
    assert keys.diagonal().all()
    # A query's and its key's group share as few images as groups of their size can.
    assert (queries & keys).sum(1).tolist() == [size // groups] * COUNT


def test_the_gradient_of_a_query_does_not_reach_images_of_other_groups():
    network = network_of(method="moco", norm_groups=4)
    views = pair()
    views[0].requires_grad_()
    vectors = network._maps(network.backbone, views[0]).mean(dim=(2, 3))
    [slope] = torch.autograd.grad(vectors[5].square().sum(), views[0])
    moved = slope.abs().amax(dim=(1, 2, 3)) > 0
    assert moved.tolist() == [False] * 4 + [True] * 4 + [False] * 8


def test_small_views_are_in_the_groups_of_their_images():
    network = network_of(method="moco", norm_groups=2)
    local = torch.randn(2, COUNT, 3, 16, 16, generator=seeded()).requires_grad_()
    vectors = network._local(list(local))
    [slope] = torch.autograd.grad(vectors[1][3].square().sum(), local)
    moved = slope.abs().amax(dim=(2, 3, 4)) > 0
    assert moved.tolist() == [[True] * 8 + [False] * 8] * 2


def test_running_statistics_move_to_the_mean_of_the_groups():
    network = network_of(method="moco", norm_groups=4)
    images, _ = pair()
    first = next(m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = first.running_mean.clone(), first.running_var.clone()
    seen = []
    handle = first.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    network._maps(network.backbone, images)
    handle.remove()
    assert len(seen) == 4
    means = torch.stack([each.mean(dim=(0, 2, 3)) for each in seen]).mean(0)
    variances = torch.stack([each.var(dim=(0, 2, 3)) for each in seen]).mean(0)
    assert torch.allclose(first.running_mean, 0.9 * before[0] + 0.1 * means, atol=1e-6)
    assert torch.allclose(first.running_var, 0.9 * before[1] + 0.1 * variances, atol=1e-5)
    assert int(first.num_batches_tracked) == 1
    assert first.momentum == 0.1


def test_other_methods_and_backbones_without_such_norms_have_one_group():
    assert network_of(method="byol", norm_groups=4).groups == 1
    with_norms = network_of(method="moco", norm_groups=4)
    assert with_norms.groups == 4
    assert statistics(with_norms.backbone)
    config = tiny_config(
        model={"backbone": "test_vit"}, pretrain=section(method="moco", norm_groups=4)
    )
    network = PretrainingNetwork(starting_backbone(config), config.pretrain, 160, images=100)
    assert network.groups == 1
    assert not statistics(network.train().backbone)


@pytest.mark.parametrize(
    ("batch", "groups"),
    [(8, 1), (16, 2), (24, 2), (32, 4), (128, 4), (255, 4), (256, 8), (4096, 8)],
)
def test_the_default_keeps_eight_images_in_a_group(batch, groups):
    assert PretrainConfig(method="moco", batch_size=batch).groups == groups


def test_groups_of_a_single_image_are_refused(tmp_path, images):
    with pytest.raises(UserError, match=r"pretrain\.norm_groups: found 16 for batches of 24"):
        start(tmp_path, images, method="moco", norm_groups=16)


@pytest.mark.parametrize(("count", "groups"), [(25, 4), (12, 2), (7, 3)])
def test_the_order_of_keys_has_every_image_once(count, groups):
    order = shuffled(count, groups, torch.device("cpu"))
    assert order.sort().values.tolist() == list(range(count))
