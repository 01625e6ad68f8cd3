"""Jigsaws and their classifiers against a loop over pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gsfl_tune.losses import Sizes
from gsfl_tune.methods import Passes
from gsfl_tune.methods.pmg import Pmg, shuffled
from gsfl_tune.models import Granular, Granularities, Layer

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


class Joint(Layered):
    """Its network has the classifiers, and one of what all of them look at."""

    def __init__(self, method):
        super().__init__()
        layers = [Layer(CHANNELS)] * 3
        settings = replace(method.granularities(layers, CLASSES), stops=())
        self.network = Granularities(settings).double()
        generator = torch.Generator().manual_seed(5)
        for parameter in self.network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)

    def granular(self, images):
        maps = [self.maps(images)] * 3
        return Granular(self.pool(maps[0]), *self.network(maps))

    def passes(self, **others):
        asked = {"granularities": self.network, "granular": self.granular}
        return super().passes(layer=self.behind, **asked, **others)


def plain_together(network, described):
    """The classifier of the concatenation by hand."""
    norm, first, _ = network.join
    x = torch.cat(described)
    x = (x - x.mean()) / (((x - x.mean()) ** 2).mean() + norm.eps).sqrt()
    x = first.weight @ (x * norm.weight + norm.bias) + first.bias
    x = torch.where(x > 0, x, x.exp() - 1)
    return network.scores[-1].weight @ x + network.scores[-1].bias


@torch.no_grad()
def test_the_joint_prediction_is_the_sum_of_all_classifiers_and_each_has_its_loss():
    method = Pmg(0.5, 3, 8, "joint")
    method.build(Sizes(CHANNELS, CHANNELS, CLASSES, None, (CHANNELS,) * 3))
    assert not list(method.parameters())  # they are the network's
    model, data = Joint(method), batch(COUNT, 16, 24)
    network = model.network
    terms = method.step(data, model.passes())
    jigsaws, together = 0.0, 0.0
    for level, (_, shown) in enumerate(model.asked):
        for image in range(COUNT):
            layers = [*network.describe[level], network.scores[level]]
            scores = plain_classifier(layers, model.conv(shown[image, None]).relu()[0])
            jigsaws -= float(scores.log_softmax(0)[data.labels[image]]) / COUNT
    answers = []
    for image, label in zip(data.inputs, data.labels, strict=True):
        maps = model.conv(image[None]).relu()[0]
        eye = torch.nn.Linear(8, 8).double()
        eye.weight.copy_(torch.eye(8))
        eye.bias.zero_()
        described = [plain_classifier([*each, eye], maps) for each in network.describe]
        single = [
            layer.weight @ v + layer.bias
            for layer, v in zip(network.scores, described, strict=False)
        ]
        own = plain_together(network, described)
        together -= float(own.log_softmax(0)[label]) / COUNT
        unit = maps.mean((1, 2)) / maps.mean((1, 2)).norm()
        answers.append(model.layer.weight @ unit + model.layer.bias + sum(single) + own)
    assert float(terms.terms["jigsaw"]) == pytest.approx(jigsaws, rel=1e-9)
    assert float(terms.terms["together"]) == pytest.approx(together, rel=1e-9)
    whole = functional.cross_entropy(model.layer(model.features(data.inputs)), data.labels)
    expected = float(whole) + 0.5 + together + 0.5 * jigsaws
    assert float(terms.total) == pytest.approx(expected, rel=1e-9)
    joined = model.granular(data.inputs).joined()
    found = model.layer(joined[:, :CHANNELS]) + joined[:, CHANNELS:]
    torch.testing.assert_close(found, torch.stack(answers), rtol=1e-9, atol=1e-9)


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
