"""Jigsaws and their classifiers against a loop over pieces."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.losses import Sizes
from gsfl_tune.methods import Passes
from gsfl_tune.methods.pmg import Pmg, shuffled

from .images import CHANNELS, CLASSES, Model, batch

COUNT = 3
WIDTHS = [4, 16, 64]
DRAWN = torch.rand(COUNT, sum(WIDTHS), generator=torch.Generator().manual_seed(7))


class Layered(Model):
    """Its earlier blocks are the same convolution: what counts is which image they see."""

    def __init__(self):
        super().__init__(drawn=DRAWN)
        self.asked = []

    def behind(self, images, following):
        self.asked.append((following, images.detach().clone()))
        return self.conv(images).relu()


def built(levels=3, weight=0.5, maps=3):
    torch.manual_seed(1)
    method = Pmg(weight, levels, 8)
    method.build(Sizes(CHANNELS, CHANNELS, CLASSES, None, (CHANNELS,) * maps))
    return method.double()


def plain_jigsaw(image, drawn, count):
    """Piece by piece: the place k shows the piece with the k-th smallest number."""
    height, width = image.shape[1] // count, image.shape[2] // count
    ranked = sorted(range(count**2), key=lambda piece: float(drawn[piece]))
    found = torch.empty_like(image)
    for place, piece in enumerate(ranked):
        (row, column), (y, x) = divmod(place, count), divmod(piece, count)
        found[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = image[
            :, y * height : (y + 1) * height, x * width : (x + 1) * width
        ]
    return found


def plain_classifier(layers, maps):
    """Norms, maximum and the rest by hand."""
    first, norm, _, second, other, _, _, _, linear = layers

    def normed(x, gain):
        spread = ((x - x.mean()) ** 2).mean()
        x = (x - x.mean()) / (spread + 1e-5).sqrt()
        return (x * gain.weight[:, None, None] + gain.bias[:, None, None]).clamp(min=0)

    x = normed(functional.conv2d(maps[None], first.weight)[0], norm)
    x = normed(functional.conv2d(x[None], second.weight, padding=1)[0], other)
    return linear.weight @ x.amax((1, 2)) + linear.bias


@torch.no_grad()
def test_it_is_the_loss_of_the_image_and_of_every_jigsaw():
    model, data, method = Layered(), batch(COUNT, 16, 24), built()
    terms = method.step(data, model.passes(layer=model.behind))
    assert [following for following, _ in model.asked] == [0, 1, 2]
    expected, start = 0.0, 0
    for level, (_, shown) in enumerate(model.asked):
        count = 2 ** (level + 1)
        for image in range(COUNT):
            own = DRAWN[image, start : start + count**2]
            wanted = plain_jigsaw(data.inputs[image], own, count)
            assert torch.equal(shown[image], wanted)
            maps = model.conv(wanted[None]).relu()[0]
            scores = plain_classifier(method.classifiers[level], maps)
            expected -= float(scores.log_softmax(0)[data.labels[image]]) / COUNT
        start += count**2
    whole = functional.cross_entropy(model.layer(model.features(data.inputs)), data.labels)
    assert float(terms.terms["jigsaw"]) == pytest.approx(expected, rel=1e-9)
    assert float(terms.total) == pytest.approx(float(whole) + 0.5 + 0.5 * expected, rel=1e-9)
    assert [note for note, _ in model.noted] == [True]


def test_pieces_that_do_not_divide_the_image_are_left_out():
    model, data = Layered(), batch(COUNT, 12, 12)
    terms = built().step(data, model.passes(layer=model.behind))
    assert [following for following, _ in model.asked] == [0, 1]
    assert torch.isfinite(terms.total.detach())


def test_there_are_as_many_classifiers_as_maps():
    model, data = Layered(), batch(COUNT, 16, 16)
    built(maps=1).step(data, model.passes(layer=model.behind))
    assert [following for following, _ in model.asked] == [0]
    assert model.widths == [4]


def test_an_ordered_jigsaw_is_the_image():
    images = batch(2, 8, 8).inputs.contiguous(memory_format=torch.channels_last)
    found = shuffled(images, torch.arange(16).expand(2, 16), 4)
    assert torch.equal(found, images)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_without_maps_it_takes_one_pass():
    model, data = Model(), batch(3, 8, 8)
    passes = Passes(model.features, model.head, model.layer, model.loss)
    terms = built().step(data, passes)
    assert len(model.shown) == 1
    assert "jigsaw" not in terms.terms
