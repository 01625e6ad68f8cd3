"""The loss of recurrent attention against plain sums, and what learns from it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from gsfl_tune.methods import Passes
from gsfl_tune.methods.recurrent_attention import RecurrentAttentionMethod, rank_loss
from gsfl_tune.models import RecurrentAttention

from .images import CHANNELS, Model, batch


def made(scales=3, weight=0.7, margin=0.05):
    method = RecurrentAttentionMethod(scales, weight, margin, 2.0, 4, "response")
    recurrent = RecurrentAttention(CHANNELS, method.recurrence).double()
    torch.manual_seed(4)
    for parameter in recurrent.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return method, recurrent


def plain_rank(rows, margin):
    """Rows of probabilities of the true class, one for each scale."""
    total, count = 0.0, len(rows[0])
    for coarse, fine in itertools.pairwise(rows):
        for image in range(count):
            total += max(0.0, coarse[image] - fine[image] + margin) / count
    return total


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_it_is_the_mean_loss_of_scales_and_their_sum_and_the_rank_loss(scales):
    (method, recurrent), model, data = made(scales), Model(), batch(5, 12, 16)
    terms = method.step(data, model.passes(recurrent=recurrent))
    assert len(model.shown) == scales
    assert torch.equal(model.shown[0], data.inputs)
    rows, losses, features = [], [], []
    for image in model.shown:
        with torch.no_grad():
            maps = model.conv(image).relu().mean((2, 3))
            features.append(maps / maps.norm(dim=1, keepdim=True))
            logits = model.layer(features[-1])
        losses.append(float(functional.cross_entropy(logits, data.labels)))
        chosen = logits.softmax(1)[torch.arange(5), data.labels]
        rows.append(chosen.tolist())
    total = sum(features)
    with torch.no_grad():
        joint = model.layer(total / total.norm(dim=1, keepdim=True))
    losses.append(float(functional.cross_entropy(joint, data.labels)))
    rank = plain_rank(rows, 0.05)
    assert rank > 0
    assert float(terms.terms["rank"].detach()) == pytest.approx(rank, rel=1e-9)
    wanted = sum(losses) / (scales + 1) + 0.5 + 0.7 * rank
    assert float(terms.total.detach()) == pytest.approx(wanted, rel=1e-9)
    # Terms with a state note the joint pass.
    assert [note for note, _ in model.noted] == [True] + [False] * scales


def test_the_rank_loss_is_zero_where_finer_scales_are_surer_by_the_margin():
    rows = torch.tensor([[0.2, 0.5], [0.4, 0.52], [0.45, 0.9]], dtype=torch.float64)
    assert float(rank_loss(rows, 0.05)) == pytest.approx(0.03 / 2)
    assert float(rank_loss(rows, 0.05)) == pytest.approx(plain_rank(rows.tolist(), 0.05))
    assert float(rank_loss(rows, 0.02)) == 0
    assert float(rank_loss(rows.flip(0), 0.0)) == pytest.approx(plain_rank(rows.flip(0), 0.0))


def test_the_coarse_scale_is_a_reference():
    rows = torch.tensor([[0.5], [0.4], [0.3]], requires_grad=True)
    rank_loss(rows, 0.05).backward()
    assert rows.grad.flatten().tolist() == [0, -1, -1]


def test_regions_learn_from_the_rank_loss_alone_too():
    (method, recurrent), model, data = made(), Model(), batch(5, 16, 16)
    terms = method.step(data, model.passes(recurrent=recurrent))
    parameters = [p for each in recurrent.proposals for p in each.parameters()]
    gradients = torch.autograd.grad(terms.terms["rank"], parameters)
    assert all(bool(gradient.any()) for gradient in gradients)


def test_a_step_against_the_gradient_lowers_the_loss():
    """As the regions are moved, with everything else as it was."""
    # The rank loss has no gradient of its coarse scales.
    (method, recurrent), model, data = made(weight=0.0), Model(), batch(6, 16, 16)

    def loss():
        return method.step(data, model.passes(recurrent=recurrent)).total

    first = loss()
    first.backward()
    with torch.no_grad():
        for parameter in recurrent.parameters():
            parameter -= 1e-3 * parameter.grad
    assert float(loss().detach()) < float(first.detach())


def test_in_the_head_stage_it_takes_one_pass():
    (method, _), model, data = made(), Model(), batch(3, 8, 8)
    terms = method.step(data, Passes(model.features, model.head, model.layer, model.loss))
    assert len(model.shown) == 1
    assert "rank" not in terms.terms
