"""R-Drop and two views: their losses against a plain reference."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import Passes
from gsfl_tune.methods.agreement import symmetric_kl
from gsfl_tune.methods.rdrop import RDrop
from gsfl_tune.methods.two_views import TwoViews
from gsfl_tune.models import HeadOutput


class Recorder:
    """A model of one layer whose dropout is a number of its own for every pass."""

    def __init__(self, masks=(1.0, 1.0)):
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3).double()
        self.masks = list(masks)
        self.noted = []
        self.extracted = 0

    def features(self, inputs):
        self.extracted += 1
        return functional.normalize(inputs, dim=1)

    def head(self, features):
        logits = self.layer(features * self.masks.pop(0))
        return HeadOutput(logits, features, None, None)

    def loss(self, output, features, targets, *, note=True):
        self.noted.append(note)
        value = functional.cross_entropy(output.logits, targets.labels)
        return LossTerms(value, value)

    @property
    def passes(self):
        return Passes(self.features, self.head, self.layer, self.loss)


def batch(views):
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(views)]
    return Batch(tuple(inputs), Targets(torch.tensor([0, 1, 2, 1, 0])), torch.arange(5))


def reference(one, other, labels, weight):
    """The mean loss of two passes and their divergence, image by image."""
    total = 0.0
    for a, b, label in zip(one.tolist(), other.tolist(), labels.tolist(), strict=True):
        p, q = (torch.tensor(x, dtype=torch.float64).softmax(0) for x in (a, b))
        entropy = -(p[label].log() + q[label].log()) / 2
        divergence = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
        total += float(entropy + weight * divergence)
    return total / len(labels)


def test_rdrop_is_the_loss_of_the_paper_halved():
    model, data = Recorder(masks=(1.0, 0.4)), batch(1)
    f = functional.normalize(data.inputs, dim=1)
    one, other = model.layer(f), model.layer(0.4 * f)
    terms = RDrop(0.7).step(data, model.passes)
    expected = reference(one, other, data.labels, 0.7)
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-12)
    # The features are the same in both passes, and a term remembers each image once.
    assert model.extracted == 1
    assert model.noted == [True, False]


def test_two_views_are_compared_with_each_other():
    model, data = Recorder(), batch(2)
    one, other = (model.layer(functional.normalize(view, dim=1)) for view in data.views)
    terms = TwoViews(1.3).step(data, model.passes)
    expected = reference(one, other, data.labels, 1.3)
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-12)
    assert model.noted == [True, False]


def test_at_weight_0_the_disagreement_is_recorded_and_not_trained():
    for method, views in ((RDrop(0.0), 1), (TwoViews(0.0), 2)):
        terms = method.step(batch(views), Recorder(masks=(1.0, 0.2)).passes)
        assert float(terms.terms["disagreement"].detach()) > 0
        assert float(terms.total.detach()) == float(terms.cross_entropy.detach())


def test_equal_predictions_do_not_differ():
    logits = torch.randn(6, 4)
    assert float(symmetric_kl(logits, logits + 3)) == pytest.approx(0, abs=1e-6)
    half = symmetric_kl(logits.bfloat16(), logits.flip(0).bfloat16())
    assert half.dtype == torch.float32
