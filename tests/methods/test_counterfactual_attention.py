"""Counterfactual attention against loops over images, maps and positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from gsfl_tune.methods import Passes
from gsfl_tune.methods.attention import drawn_map
from gsfl_tune.methods.counterfactual_attention import CounterfactualAttention
from gsfl_tune.models import BilinearAttention

from .images import CHANNELS, CLASSES, Model, batch
from .test_attention_crop import plain_box, plain_crop

COUNT, MAPS, WIDTH, HEIGHT, ACROSS = 4, 3, 8, 12, 16
PLACES = (HEIGHT // 2) * (ACROSS // 2)
DRAWN = torch.rand(COUNT, 4 + 3 * MAPS * PLACES, generator=torch.Generator().manual_seed(9))


class Attending(Model):
    """The small model with attention maps."""

    def __init__(self, settings, std=0.5, drawn=DRAWN):
        super().__init__(drawn=drawn)
        self.attention = BilinearAttention(CHANNELS, settings).double()
        torch.manual_seed(4)
        if std:  # as if it had been trained
            for parameter in self.attention.parameters():
                torch.nn.init.normal_(parameter, 0, std)

    def pool(self, maps, *, fixed_length=False):
        return functional.normalize(self.attention(super().pool(maps), maps)[0], dim=1)

    def attended(self, maps, instead):
        joint, attention = self.attention(super().pool(maps), maps, instead)
        return functional.normalize(joint, dim=1), attention

    def passes(self, **others):
        return super().passes(attended=self.attended, **others)


def made(weight=1.0, crop=1.0, drop=1.0, std=0.5):
    method = CounterfactualAttention(MAPS, weight, crop, drop, WIDTH)
    return method, Attending(method.attends(CHANNELS), std)


def plain_choice(maps, drawn):
    """The map of an image at which roulette by roots of means stops."""
    roots = [math.sqrt(float(each.mean())) for each in maps]
    passed = 0.0
    for number, root in enumerate(roots):
        passed += root
        if drawn * sum(roots) < passed:
            return number
    return len(roots) - 1


def plain_enlarged(one):
    large = functional.interpolate(one[None, None], (HEIGHT, ACROSS), mode="bilinear")[0, 0]
    return (large - large.min()) / (large.max() - large.min())


def plain_loss(model, images, labels, weight, random):
    """Loss of a pass: of every image alone, with the scores of its own random attention."""
    total = effect = 0.0
    for image, label, numbers in zip(images, labels, random, strict=True):
        maps = model.conv(image[None]).relu()
        own = model.layer(model.attended(maps, None)[0])[0]
        instead = (2 * numbers.double()).reshape(1, MAPS, HEIGHT // 2, ACROSS // 2)
        other = model.layer(model.attended(maps, instead)[0])[0]
        total += 0.5 - float(own.log_softmax(0)[label])
        effect -= float((own - other).log_softmax(0)[label])
    return (total + weight * effect) / len(images), effect / len(images)


@pytest.mark.parametrize(
    ("weight", "crop", "drop"),
    [(1.0, 1.0, 1.0), (0.3, 0.5, 0.0), (2.0, 0.0, 2.0), (0.0, 1.0, 1.0), (1.0, 0.0, 0.0)],
)
def test_it_is_the_mean_loss_of_the_passes_and_of_their_effects(weight, crop, drop):
    method, model = made(weight, crop, drop)
    data = batch(COUNT, HEIGHT, ACROSS)
    images = data.inputs
    terms = method.step(data, model.passes())
    with torch.no_grad():
        _, attention = model.attended(model.conv(images).relu(), None)
        wanted = [(1.0, images)]
        chosen = {
            at: [
                plain_enlarged(maps[plain_choice(maps, float(numbers[at]))])
                for maps, numbers in zip(attention, DRAWN, strict=True)
            ]
            for at in (0, 2)
        }
        if crop:
            boxes = [
                plain_box(one, 0.4 + 0.2 * float(numbers[1]))
                for one, numbers in zip(chosen[0], DRAWN, strict=True)
            ]
            pairs = zip(images, boxes, strict=True)
            wanted.append((crop, torch.stack([plain_crop(*pair) for pair in pairs])))
        if drop:
            kept = [
                one < 0.2 + 0.3 * float(numbers[3])
                for one, numbers in zip(chosen[2], DRAWN, strict=True)
            ]
            wanted.append((drop, images * torch.stack(kept)[:, None]))
        assert len(model.shown) == len(wanted) == method.feature_passes
        total = effects = 0.0
        random = DRAWN[:, 4:].split(MAPS * PLACES, dim=1)
        for found, (share, expected), numbers in zip(
            model.shown, wanted, random[: len(wanted)], strict=True
        ):
            # Edges of a region are of single precision.
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            loss, effect = plain_loss(model, expected, data.labels, weight, numbers)
            total += share * loss
            effects += share * effect
    shares = 1 + crop + drop
    assert float(terms.total.detach()) == pytest.approx(total / shares, rel=1e-5)
    assert ("effect" in terms.terms) == (weight > 0)
    if weight:
        assert float(terms.terms["effect"].detach()) == pytest.approx(effects / shares, rel=1e-5)
    assert [note for note, _ in model.noted] == [True] + [False] * (len(wanted) - 1)
    # Numbers are drawn once: those of a second call would begin like these.
    assert model.widths == [4 + (weight > 0) * len(wanted) * MAPS * PLACES]


def test_the_effect_teaches_the_attention():
    """The gradient of the effect alone reaches the layer of attention, also against differences."""
    method, model = made(weight=1.0, crop=0.0, drop=0.0)
    data = batch(COUNT, HEIGHT, ACROSS)

    def effect():
        return method.step(data, model.passes()).terms["effect"]

    effect().backward()
    kernel = model.attention.attend.weight
    gradient, step = kernel.grad.clone(), 1e-6
    assert gradient.any()
    with torch.no_grad():
        for place in ((0, 1), (2, 4)):
            kernel[place] += step
            above = float(effect())
            kernel[place] -= 2 * step
            below = float(effect())
            kernel[place] += step
            slope = (above - below) / (2 * step)
            assert float(gradient[place]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_training_on_the_effect_makes_attention_better_than_random():
    method, model = made(crop=0.0, drop=0.0, std=0.0)
    data = batch(COUNT, HEIGHT, ACROSS)
    weights = [*model.attention.parameters(), *model.conv.parameters(), *model.layer.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    values = []
    for _ in range(60):
        terms = method.step(data, model.passes())
        values.append(float(terms.terms["effect"].detach()))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    # Nothing is joined at first: both kinds of attention have the same scores.
    assert values[0] == pytest.approx(math.log(CLASSES))
    assert values[-1] < 0.6 * values[0]


def test_a_model_without_attention_yet_predicts_what_it_did():
    method, model = made(std=0.0)
    images = batch(COUNT, HEIGHT, ACROSS).inputs
    plain = Model()
    plain.conv, plain.layer = model.conv, model.layer
    with torch.no_grad():
        found = method.predict(images, model.passes())
        torch.testing.assert_close(found, plain.layer(plain.features(images)))


def test_maps_are_drawn_by_the_roots_of_their_means():
    means = torch.tensor([4.0, 0.0, 1.0, 9.0])
    attention = means[None, :, None, None].expand(6000, 4, 2, 2)
    drawn = (torch.arange(6000) + 0.5) / 6000
    counts = torch.bincount(drawn_map(attention, drawn)[:, 0, 0].long(), minlength=10)
    assert [int(counts[mean]) for mean in (4, 0, 1, 9)] == [2000, 0, 1000, 3000]
    assert not drawn_map(torch.zeros(2, 4, 2, 2), torch.tensor([0.0, 0.99])).any()


def test_without_maps_it_takes_one_pass():
    method, model = made()
    passes = Passes(model.features, model.head, model.layer, model.loss)
    terms = method.step(batch(3, 8, 8), passes)
    assert len(model.shown) == 1
    assert "effect" not in terms.terms
