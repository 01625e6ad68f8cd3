"""FixMatch against a plain loop over the images."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import Passes
from gsfl_tune.methods.fixmatch import FixMatch
from gsfl_tune.models import HeadOutput

THRESHOLD = 0.6


class Model:
    def __init__(self):
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(4, 3).double()

    @property
    def passes(self):
        def head(features):
            return HeadOutput(self.layer(features), features, None, None)

        def loss(output, features, targets, *, note=True):
            value = functional.cross_entropy(output.logits, targets.labels)
            return LossTerms(value, value)

        return Passes(lambda inputs: inputs, head, self.layer, loss)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    pair = 2 * torch.randn(2, 12, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1])
    return Batch((inputs,), Targets(labels), torch.arange(4), None, (pair[0], pair[1]))


def test_confident_predictions_are_labels_of_the_strong_view(batch):
    model = Model()
    terms = FixMatch(0.7, THRESHOLD, 3).step(batch, model.passes)
    weight, bias = (p.tolist() for p in model.layer.parameters())

    def probabilities(x):
        z = [
            sum(w * v for w, v in zip(row, x, strict=True)) + b
            for row, b in zip(weight, bias, strict=True)
        ]
        exps = [math.exp(each) for each in z]
        return [each / sum(exps) for each in exps]

    added, kept = 0.0, 0
    for weak, strong in zip(*(each.tolist() for each in batch.unlabelled), strict=True):
        p = probabilities(weak)
        if max(p) > THRESHOLD:
            kept += 1
            added -= math.log(probabilities(strong)[p.index(max(p))])
    assert 0 < kept < 12
    labelled = -sum(
        math.log(probabilities(x)[y])
        for x, y in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True)
    )
    expected = labelled / 4 + 0.7 * added / 12
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-12)
    assert float(terms.terms["pseudo_share"]) == pytest.approx(kept / 12)


def test_the_gradient_is_of_the_strong_view_alone(batch):
    weak, strong = (each.clone().requires_grad_() for each in batch.unlabelled)
    inputs = batch.inputs
    seen = Batch((inputs,), batch.targets, batch.positions, None, (weak, strong))
    FixMatch(1.0, THRESHOLD, 3).step(seen, Model().passes).total.backward()
    assert weak.grad is None
    assert strong.grad.any()


def test_pieces_of_a_batch_have_their_share_of_the_images_without_labels(batch):
    parts = list(batch.chunk(2))
    assert [len(part.unlabelled[0]) for part in parts] == [6, 6]
    for place in range(2):
        joined = torch.cat([part.unlabelled[place] for part in parts])
        assert torch.equal(joined, batch.unlabelled[place])


def test_without_such_images_it_is_the_loss_of_the_labelled_ones(batch):
    plain = Batch(batch.views, batch.targets, batch.positions)
    terms = FixMatch(1.0, THRESHOLD, 3).step(plain, Model().passes)
    assert torch.equal(terms.total, terms.cross_entropy)
