"""The strategy of pairs: what is trained on what, and the sum of its terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.training.pretrain.bases import BASES
from gsfl_tune.training.pretrain.decoder import Decoder, decoded_size, resized
from gsfl_tune.training.pretrain.dimensions import perturbed
from tests.training.pretrain.conftest import (
    SIZE,
    gradient_of,
    network_of,
    seeded,
    strategy,
)


def trained(views, *, paired=True, method="simsiam", **changes):
    """A network after one backward pass, with the parts of its loss."""
    network = network_of(method=method, discriminative=strategy(**changes))
    loss, parts, _ = network.terms(views, seeded(), paired=paired)
    loss.backward()
    return network, {name: float(value.detach()) for name, value in parts.items()}


def test_the_decoder_learns_from_the_reconstruction_alone(views):
    with_pairs, parts = trained(views)
    without, _ = trained(views, pair_weight=0.0)
    assert parts["pair"] != 0
    decoders = [each.discriminative.decoder for each in (with_pairs, without)]
    assert np.array_equal(*map(gradient_of, decoders))
    assert np.abs(gradient_of(decoders[0])).max() > 0
    backbones = [gradient_of(each.backbone) for each in (with_pairs, without)]
    assert not np.allclose(*backbones, atol=1e-6)


def test_the_backbone_learns_base_plus_alpha_reconstruction_plus_nu_pair(views):
    """Gradients are linear in both weights."""

    def backbone(alpha, nu):
        network, _ = trained(views, reconstruction_weight=alpha, pair_weight=nu)
        return gradient_of(network.backbone)

    # A tiny weight keeps the strategy on, and its random numbers.
    base = backbone(1e-12, 1e-12)
    alone = network_of(method="simsiam")
    loss, _, _ = alone.terms(views, seeded(), paired=True)
    loss.backward()
    assert np.allclose(base, gradient_of(alone.backbone), atol=1e-7)
    reconstruction, pair = backbone(1.0, 1e-12) - base, backbone(1e-12, 1.0) - base
    assert np.abs(reconstruction).max() > 1e-4 < np.abs(pair).max()
    found = backbone(0.4, 0.8)
    assert np.allclose(found, base + 0.4 * reconstruction + 0.8 * pair, atol=1e-5)


def test_the_recorded_loss_is_the_weighted_sum():
    network = network_of(discriminative=strategy(), lcr={"weight": 0.1})
    parts = {"base": 2.0, "reconstruction": 3.0, "pair": 5.0, "screening": 7.0}
    assert network.weighted(parts) == pytest.approx(2 + 0.3 * 3 + 0.7 * 5 + 0.1 * 7)


@pytest.mark.parametrize("kind", ["cosine", "squared"])
def test_a_pair_are_decoded_images_that_differ_in_the_chosen_dimensions(views, kind):
    options = strategy(pair_loss=kind, perturbation="noise", strength=0.8)
    network = network_of(discriminative=options)
    own = network.discriminative
    _, parts, vectors = network.terms(views, seeded(), paired=True)
    # Once more by hand, with the statistics of that batch and the same random numbers.
    changed = perturbed(vectors, own.chosen, own.statistics.variance.sqrt(), own.config, seeded())
    assert int((changed != vectors).any(0).sum()) == int(own.chosen.sum()) > 0
    both = [
        network.backbone(resized(own.decoder(v), SIZE)).mean((2, 3)) for v in (vectors, changed)
    ]
    one, other = (each.detach().double().numpy() for each in both)
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    cosines = (one * other).sum(1)
    expected = (1 - cosines).mean() if kind == "cosine" else (2 - 2 * cosines).mean()
    assert float(parts["pair"].detach()) == pytest.approx(float(expected), rel=1e-3)


def test_the_reconstruction_is_the_mean_squared_error_of_the_view(views):
    network = network_of(discriminative=strategy())
    _, parts, vectors = network.terms(views, seeded(), paired=False)
    own = network.discriminative
    target = functional.interpolate(
        views[0], size=(own.size, own.size), mode="bilinear", antialias=True
    )
    expected = ((own.decoder(vectors) - target) ** 2).mean()
    assert float(parts["reconstruction"].detach()) == pytest.approx(
        float(expected.detach()), rel=1e-5
    )
    assert "pair" not in parts


def test_both_vectors_may_be_reconstructed(views):
    options = strategy(reconstruct="both", perturbation="zero", pair_weight=0.0)
    network = network_of(discriminative=options)
    _, parts, vectors = network.terms(views, seeded(), paired=False)
    own = network.discriminative
    target = resized(views[0], own.size)
    changed = torch.where(own.chosen, 0.0, vectors)
    errors = [((own.decoder(v) - target) ** 2).mean() for v in (vectors, changed)]
    expected = float((sum(errors) / 2).detach())
    assert float(parts["reconstruction"].detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", BASES)
def test_pairs_leave_no_trace_in_what_a_method_remembers(views, method):
    """Norms, queues and centres are of photographs, as without pairs."""
    states = []
    for paired in (True, False):
        network = network_of(method=method, discriminative=strategy())
        torch.manual_seed(0)
        network.terms(views, seeded(), paired=paired)
        modules = [network.backbone, network.base, network.teacher]
        states.append([b.clone() for m in modules if m for b in m.buffers()])
    assert len(states[0]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


@pytest.mark.parametrize("size", [8, 17, 32, 48, 100])
def test_a_decoder_makes_any_size(size):
    assert Decoder(6, size, 8)(torch.randn(2, 6)).shape == (2, 3, size, size)


def test_decoded_images_are_half_as_large_and_at_most_64_px():
    assert [decoded_size(None, side) for side in (16, 48, 105, 224)] == [8, 24, 52, 64]
    assert decoded_size(96, 224) == 96
