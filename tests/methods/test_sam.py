"""Sharpness-aware minimisation, against its two equations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import Passes
from gsfl_tune.methods.sam import Sam
from gsfl_tune.models import HeadOutput

RHO = 0.3


class Model:
    """A layer, and one that is trained but takes no part."""

    def __init__(self):
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3).double()
        self.idle = torch.nn.Linear(2, 2).double()
        self.noted = []

    def loss(self, output, features, targets, *, note=True):
        self.noted.append(note)
        value = functional.cross_entropy(output.logits, targets.labels)
        return LossTerms(value, value)

    @property
    def passes(self):
        weights = [*self.layer.parameters(), *self.idle.parameters()]

        def head(features):
            return HeadOutput(self.layer(features), features, None, None)

        return Passes(lambda inputs: inputs, head, self.layer, self.loss, weights)


def test_the_gradient_is_that_at_the_worst_place_nearby():
    model = Model()
    x = torch.randn(6, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 1, 0, 2])
    before = [p.detach().clone() for p in model.layer.parameters()]

    def gradients(weights):
        leaves = [w.clone().requires_grad_() for w in weights]
        loss = functional.cross_entropy(x @ leaves[0].T + leaves[1], y)
        return loss, torch.autograd.grad(loss, leaves)

    _, first = gradients(before)
    length = sum(float(g.square().sum()) for g in first) ** 0.5
    loss, expected = gradients([w + RHO * g / length for w, g in zip(before, first, strict=True)])
    terms = Sam(RHO).step(Batch((x,), Targets(y), torch.arange(6)), model.passes)
    (0.5 * terms.total).backward()
    assert float(terms.total.detach()) == pytest.approx(float(loss.detach()), rel=1e-12)
    for parameter, was, gradient in zip(model.layer.parameters(), before, expected, strict=True):
        assert torch.equal(parameter, was)
        torch.testing.assert_close(parameter.grad, 0.5 * gradient)
    assert not model.idle.weight.grad.any()
    # A term remembers each image once.
    assert model.noted == [False, True]
