"""What is shown of a network: it is true, and showing it changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from gsfl_tune.training.pretrain.bases import BASES
from tests.training.pretrain.conftest import network_of, seeded, strategy

LARGE = 64


@pytest.fixture
def photographs():
    return torch.randn(5, 3, LARGE, LARGE, generator=seeded())


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("method", BASES)
def test_maps_of_an_image_are_shown_without_a_trace(photographs, method):
    network = network_of(method=method)
    before, numbers = buffers(network), torch.get_rng_state()
    maps = network.agreement_maps(photographs)
    assert maps.shape == (5, 2, 2)
    assert bool((maps >= 0).all())
    assert float(maps.max()) > 0
    after = buffers(network)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(numbers, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(maps, network.agreement_maps(photographs))


def test_maps_are_those_of_the_gradient_of_the_agreement(photographs):
    network = network_of(method="simsiam")
    maps = network.agreement_maps(photographs)
    network.eval()
    features = [network.backbone(each).float() for each in (photographs, photographs.flip(3))]
    loss = network.base([each.mean((2, 3)) for each in features])
    (slope,) = torch.autograd.grad(loss, features[:1])
    weights = slope.mean((2, 3), keepdim=True) * len(photographs)
    expected = (weights * features[0]).sum(1).abs()
    assert torch.allclose(maps, expected, atol=1e-6)


def test_both_decoded_images_differ_in_the_chosen_dimensions_alone(views):
    network = network_of(discriminative=strategy(perturbation="zero"))
    network.terms(views, seeded(), paired=True)
    own = network.discriminative
    original, perturbed = network.decoded(views[0], seeded())
    assert original.shape == perturbed.shape == (len(views[0]), 3, own.size, own.size)
    assert not torch.equal(original, perturbed)
    silent = copy.deepcopy(network)
    with torch.no_grad():
        # A decoder that does not see those dimensions.
        silent.discriminative.decoder.start.weight[:, own.chosen] = 0
    assert torch.allclose(*silent.decoded(views[0], seeded()), atol=1e-6)
