"""Batches of cached features: the right rows, in the right view, in float32."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.training.caches.feature_table import FeatureTable

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tables(count, dtype=torch.float32):
    """Row i of view v holds (v, i)."""
    position = torch.arange(50, dtype=dtype)
    return [torch.stack([torch.full_like(position, view), position], 1) for view in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_every_image_is_shown_once_in_its_view(device, dtype):
    order = torch.randperm(50)
    shown = torch.randint(3, (50,))
    table = FeatureTable(tables(3, dtype), torch.device(device))
    sizes = []
    for (features,), positions in table.batches(order, 16, shown[None]):
        assert features.dtype == torch.float32
        view, position = features.cpu().unbind(1)
        assert torch.equal(position.long(), positions.cpu())
        start = sum(sizes)
        part = order[start : start + 16]
        assert torch.equal(positions.cpu().sort().values, part.sort().values)
        expected = dict(zip(order.tolist(), shown.tolist(), strict=True))
        assert view.long().tolist() == [expected[i] for i in positions.tolist()]
        sizes.append(len(positions))
    assert sizes == [16, 16, 16, 2]


@pytest.mark.parametrize("device", DEVICES)
def test_one_view_keeps_the_order(device):
    order = torch.randperm(50)[:20]
    table = FeatureTable(tables(1), torch.device(device))
    features = torch.cat([features for (features,), _ in table.batches(order, 7)])
    assert torch.equal(features.cpu()[:, 1].long(), order)


@pytest.mark.parametrize("device", DEVICES)
def test_several_views_of_a_batch_show_the_same_images(device):
    order = torch.randperm(50)
    shown = torch.stack([torch.randint(3, (50,)) for _ in range(2)])
    table = FeatureTable(tables(3), torch.device(device))
    places = {position: place for place, position in enumerate(order.tolist())}
    for views, positions in table.batches(order, 16, shown):
        assert len(views) == 2
        own = [places[position] for position in positions.tolist()]
        for features, wanted in zip(views, shown, strict=True):
            view, position = features.cpu().unbind(1)
            assert torch.equal(position.long(), positions.cpu())
            assert view.long().tolist() == wanted[own].tolist()


def test_the_tensors_of_the_cache_are_read_in_place():
    tensors = tables(2)
    table = FeatureTable(tensors, CPU)
    tensors[1][3] = -1
    ((features,), _), *_ = table.batches(torch.tensor([3]), 1, torch.tensor([[1]]))
    assert features.tolist() == [[-1, -1]]
    assert table.device_bytes == 0


@pytest.mark.gpu
def test_a_gpu_keeps_the_precision_of_the_cache():
    table = FeatureTable(tables(2, torch.float16), torch.device("cuda"))
    assert table.device_bytes == 2 * 50 * 2 * 2
