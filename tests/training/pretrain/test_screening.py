"""Common rationales: the screening head and its divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.pretrain_config import LcrConfig
from gsfl_tune.training.pretrain.gradcam import cam, gradients
from gsfl_tune.training.pretrain.screening import Screening, unit_range
from tests.training.pretrain.conftest import gradient_of, network_of, seeded


@pytest.fixture
def views():
    # Large enough for maps of several positions.
    one = torch.randn(8, 3, 96, 96, generator=seeded(3))
    return one, one + 0.3 * torch.randn(one.shape, generator=seeded(4))


def head(**changes):
    torch.manual_seed(0)
    return Screening(6, LcrConfig(channels=4, **changes))


def inputs():
    maps = torch.randn(5, 6, 3, 4, generator=seeded()).requires_grad_()
    weight = torch.randn(6, generator=seeded(2))
    return maps, torch.tanh(maps.mean((2, 3)) @ weight).mean()


def test_the_head_is_a_convolution_whose_largest_channel_counts():
    screening = head().eval()
    maps = torch.randn(2, 6, 3, 4, generator=seeded())
    weights = screening.layers[0].weight[:, :, 0, 0].detach().numpy()
    found = screening(maps).detach().numpy()
    for image in range(2):
        for y in range(3):
            for x in range(4):
                vector = maps[image, :, y, x].numpy()
                # A norm at its start divides by the root of 1 + 1e-5.
                values = [max(0.0, row @ vector / np.sqrt(1 + 1e-5)) for row in weights]
                assert found[image, y, x] == pytest.approx(max(values), abs=1e-5)


def test_the_divergence_is_that_of_shares_of_the_positions():
    screening = head(temperature=0.5)
    maps, loss = inputs()
    [slope] = gradients(loss, [maps])
    found = float(screening.divergence(maps, slope).detach())

    def shares(values):
        values = values.detach().double().numpy().reshape(5, -1)
        low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
        powers = np.exp((values - low) / (high - low + 1e-7) / 0.5)
        return powers / powers.sum(1, keepdims=True)

    wanted, given = shares(cam(maps, slope)), shares(screening(maps))
    expected = (wanted * np.log(wanted / given)).sum(1).mean()
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_map_without_any_difference_is_evenly_spread():
    assert torch.equal(unit_range(torch.full((2, 3, 3), 4.0)), torch.zeros(2, 3, 3))


@pytest.mark.parametrize("learns", [True, False])
def test_the_backbone_learns_from_the_divergence_only_where_it_shall(views, learns):
    found = []
    for weight in (0.5, 1e-12):
        network = network_of(lcr={"weight": weight, "backbone_learns": learns, "channels": 4})
        loss, _, _ = network.terms(views, seeded(), paired=False)
        loss.backward()
        found.append(gradient_of(network.backbone))
        assert (np.abs(gradient_of(network.screening)).max() > 1e-9) == (weight == 0.5)
    assert np.allclose(*found, atol=1e-8) != learns


def test_screened_representations_weigh_places(views):
    network = network_of(lcr={"weight": 0.1, "channels": 4}).eval()
    maps = network.backbone(views[0]).detach()
    places = unit_range(network.screening(maps))
    expected = torch.einsum("bchw,bhw->bc", maps, places).detach()
    expected = expected / expected.norm(dim=1, keepdim=True)
    found = network.representation(views[0], screened=True)
    assert torch.allclose(found, expected, atol=1e-5)
