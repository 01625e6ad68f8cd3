"""Means over views of an image, against torchvision's crops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torchvision.transforms.functional import five_crop

from gsfl_tune.models import Ensemble
from tests.export.conftest import make_config, make_network

SIDE = 32


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_corners_are_those_of_torchvision_enlarged(images):
    found = Ensemble([make_network(make_config())], crops=True).views(images)
    corners = five_crop(images, [28, 28])[:4]
    expected = [
        functional.interpolate(each, (SIDE, SIDE), mode="bilinear", align_corners=False)
        for each in corners
    ]
    assert len(found) == 5
    assert torch.equal(found[0], images)
    for one, other in zip(found[1:], expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("flip", "crops", "views"), [(False, True, 5), (True, True, 10)])
def test_the_answer_is_the_mean_of_the_probabilities_of_all_views(images, flip, crops, views):
    network = make_network(make_config()).eval()
    ensemble = Ensemble([network], flip=flip, crops=crops).eval()
    seen = ensemble.views(images)
    assert len(seen) == views
    with torch.no_grad():
        expected = sum(network.infer(each).double().softmax(1) for each in seen) / views
        found = ensemble.infer(images).double().exp()
    assert torch.allclose(found, expected, atol=1e-6)
