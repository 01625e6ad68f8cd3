"""Copies in other surroundings and the distance of their features, against loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.methods import Passes
from gsfl_tune.methods.attention import class_activation
from gsfl_tune.methods.feature_alignment import FeatureAlignment, channel_distance

from .images import Model, batch
from .test_attention_crop import plain_attention

COUNT, HEIGHT, WIDTH = 5, 12, 16
DRAWN = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(3))


def passes_of(model):
    return model.passes(classifier=model.layer.weight.detach())


def plain_copies(images, attention):
    """Pixel by pixel: the object of one image, and what is around the object of another."""
    order = sorted(range(len(images)), key=lambda image: float(DRAWN[image, 0]))
    lows = [0.2 + 0.3 * float(drawn) for _, drawn in DRAWN]
    found = torch.zeros_like(images)
    for one, other in enumerate(order):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                if float(attention[one, row, column]) >= lows[one]:
                    found[one, :, row, column] = images[one, :, row, column]
                elif float(attention[other, row, column]) < lows[other]:
                    found[one, :, row, column] = images[other, :, row, column]
    return found


def plain_distance(one, other, row):
    total = sum(abs(float(weight)) for weight in row)
    return (
        sum(
            abs(float(weight)) * (float(a) - float(b)) ** 2
            for weight, a, b in zip(row, one, other, strict=True)
        )
        / total
    )


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_it_is_the_mean_loss_of_both_and_their_distance(weight):
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    terms = FeatureAlignment(weight, "activation").step(data, passes_of(model))
    with torch.no_grad():
        attention = plain_attention(model.conv(data.inputs).relu(), HEIGHT, WIDTH)
        copies = plain_copies(data.inputs, attention)
        shown, copied = model.shown
        assert torch.equal(shown, data.inputs)
        torch.testing.assert_close(copied, copies)
        assert not torch.equal(copied, shown)
        own, other = (model.pool(model.conv(each).relu()) for each in (shown, copies))
        distance = loss = 0.0
        for image, label in enumerate(data.labels):
            for features in (own, other):
                loss += 0.5 - float(model.layer(features[image]).log_softmax(0)[label])
            distance += plain_distance(own[image], other[image], model.layer.weight[label])
    distance /= COUNT
    assert float(terms.terms["alignment"].detach()) == pytest.approx(distance, rel=1e-6)
    expected = loss / (2 * COUNT) + weight * distance
    assert float(terms.total.detach()) == pytest.approx(expected, rel=1e-6)
    assert [note for note, _ in model.noted] == [True, False]


def test_the_distance_teaches_the_features_of_both_and_not_the_classifier():
    generator = torch.Generator().manual_seed(0)
    one, other, row = (
        torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    )
    channel_distance(one, other, row).backward()
    assert row.grad is None
    torch.testing.assert_close(one.grad, -other.grad)
    assert one.grad.any()
    assert float(channel_distance(one, one, row).detach()) == 0.0
    # Nothing counts where the classifier sees nothing.
    assert float(channel_distance(one, other, torch.zeros_like(row)).detach()) == 0.0


def test_training_on_it_makes_features_independent_of_surroundings():
    found = {}
    for weight in (0.0, 30.0):
        model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
        method = FeatureAlignment(weight, "activation")
        optimizer = torch.optim.Adam([*model.conv.parameters(), *model.layer.parameters()], lr=0.01)
        for _ in range(60):
            terms = method.step(data, passes_of(model))
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
        found[weight] = float(terms.terms["alignment"].detach())
    assert found[30.0] < 0.5 * found[0.0]


def test_the_class_map_decides_what_is_kept():
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    FeatureAlignment(1.0, "class").step(data, passes_of(model))
    maps = model.conv(data.inputs).relu().detach()
    adds = class_activation(maps, data.labels, passes_of(model))
    large = functional.interpolate(adds[:, None], (HEIGHT, WIDTH), mode="bilinear")[:, 0]
    attention = torch.stack([(each - each.min()) / (each.max() - each.min()) for each in large])
    torch.testing.assert_close(model.shown[1], plain_copies(data.inputs, attention))


def test_an_even_map_keeps_the_whole_image():
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    torch.nn.init.zeros_(model.conv.weight)
    torch.nn.init.ones_(model.conv.bias)
    FeatureAlignment(1.0, "activation").step(data, passes_of(model))
    assert torch.equal(model.shown[1], data.inputs)


def test_an_object_is_put_into_the_surroundings_of_another():
    """A bright object on a dark ground and one on a grey ground exchange their grounds."""
    images = torch.full((2, 3, 16, 16), 0.01, dtype=torch.float64)
    images[1] = -0.02
    images[0, :, :8, :8] = images[1, :, 8:, 8:] = 1.0
    model = Model(stride=1, drawn=torch.tensor([[0.9, 0.5], [0.1, 0.5]]))
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.zero_()
        model.conv.weight[0, 0, 1, 1] = 1.0
    data = Batch((images,), Targets(torch.tensor([0, 1])), torch.arange(2))
    FeatureAlignment(1.0, "activation").step(data, passes_of(model))
    first, second = model.shown[1]
    assert (first[:, :8, :8] == 1).all()
    assert (first[:, :8, 8:] == -0.02).all()
    assert (second[:, 8:, 8:] == 1).all()
    assert (second[:, 8:, :8] == 0.01).all()
    # Of the other's object nothing but the mean colour is seen.
    assert not first[:, 8:, 8:].any()
    assert not second[:, :8, :8].any()


def test_without_maps_it_takes_one_pass():
    model, data = Model(), batch(3, 8, 8)
    passes = Passes(model.features, model.head, model.layer, model.loss)
    terms = FeatureAlignment(1.0, "activation").step(data, passes)
    assert len(model.shown) == 1
    assert "alignment" not in terms.terms
