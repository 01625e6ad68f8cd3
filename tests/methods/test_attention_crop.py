"""Crops and drops by attention, against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.methods import Passes
from gsfl_tune.methods.attention import class_activation, crops, enlarged
from gsfl_tune.methods.attention_crop import AttentionCrop

from .images import Model, batch

DRAWN = torch.rand(5, 2, generator=torch.Generator().manual_seed(3))


def plain_box(attention, threshold):
    """Left, top, right and bottom of what is above the threshold, with a tenth more."""
    height, width = attention.shape
    places = [
        (y, x) for y in range(height) for x in range(width) if float(attention[y, x]) >= threshold
    ]
    ys, xs = [y for y, _ in places], [x for _, x in places]
    return (
        max(0.0, min(xs) / width - 0.1),
        max(0.0, min(ys) / height - 0.1),
        min(1.0, (max(xs) + 1) / width + 0.1),
        min(1.0, (max(ys) + 1) / height + 0.1),
    )


def plain_crop(image, box):
    """Bilinear interpolation, pixel by pixel; the last pixels go on beyond the edge."""
    _, height, width = image.shape
    left, top, right, bottom = box
    found = torch.zeros_like(image)

    def at(y, x):
        return image[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    for row in range(height):
        for column in range(width):
            y = (top + (row + 0.5) / height * (bottom - top)) * height - 0.5
            x = (left + (column + 0.5) / width * (right - left)) * width - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            down, across = y - math.floor(y), x - math.floor(x)
            y, x = math.floor(y), math.floor(x)
            upper = (1 - across) * at(y, x) + across * at(y, x + 1)
            lower = (1 - across) * at(y + 1, x) + across * at(y + 1, x + 1)
            found[:, row, column] = (1 - down) * upper + down * lower
    return found


def plain_attention(maps, height, width):
    mean = maps.abs().mean(1)
    large = functional.interpolate(mean[:, None], (height, width), mode="bilinear")[:, 0]
    return torch.stack([(each - each.min()) / (each.max() - each.min()) for each in large])


@pytest.mark.parametrize(("crop", "drop"), [(1.0, 1.0), (0.5, 0.0), (0.0, 2.0), (0.0, 0.0)])
def test_it_is_the_mean_loss_of_image_crop_and_drop(crop, drop):
    model, data = Model(drawn=DRAWN), batch(5, 12, 16)
    images = data.inputs
    attention = plain_attention(model.conv(images).relu().detach(), 12, 16)
    wanted = [(1.0, images)]
    thresholds = [(0.4 + 0.2 * float(a), 0.2 + 0.3 * float(b)) for a, b in DRAWN]
    if crop:
        boxes = [plain_box(one, low) for one, (low, _) in zip(attention, thresholds, strict=True)]
        pairs = zip(images, boxes, strict=True)
        wanted.append((crop, torch.stack([plain_crop(*pair) for pair in pairs])))
    if drop:
        kept = [one < high for one, (_, high) in zip(attention, thresholds, strict=True)]
        wanted.append((drop, images * torch.stack(kept)[:, None]))
    terms = AttentionCrop(crop, drop, "activation").step(data, model.passes())
    assert len(model.shown) == len(wanted)
    total = 0.0
    for found, (weight, expected) in zip(model.shown, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        with torch.no_grad():
            logits = model.layer(functional.normalize(model.conv(expected).relu().mean((2, 3))))
            own = functional.cross_entropy(logits, data.labels)
        total += weight * (float(own) + 0.5)
    assert float(terms.total.detach()) == pytest.approx(total / (1 + crop + drop), rel=1e-6)
    assert [note for note, _ in model.noted] == [True] + [False] * (len(wanted) - 1)


def test_a_class_is_looked_for_where_it_adds_to_the_score():
    """With the mean and a linear head: the class activation map, position by position."""
    model, data = Model(), batch(4, 8, 8)
    maps = model.conv(data.inputs).relu().detach()
    found = class_activation(maps, data.labels, model.passes())
    assert not any(p.grad is not None for p in model.layer.parameters())
    for image, label in enumerate(data.labels):
        length = float(maps[image].mean((1, 2)).norm())
        for row in range(4):
            for column in range(4):
                own = float(model.layer.weight[label].detach() @ maps[image, :, row, column])
                expected = own / 16 / length
                assert float(found[image, row, column]) == pytest.approx(expected, rel=1e-9)
    scores = model.layer(model.pool(maps)).gather(1, data.labels[:, None])[:, 0]
    bias = model.layer.bias[data.labels]
    torch.testing.assert_close(found.sum((1, 2)), (scores - bias).detach())


def test_the_class_map_decides_the_crop():
    """Two halves of an image show two classes: the crop is the half of the label."""
    images = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    images[:, 0, :, :4], images[:, 1, :, 4:] = 1.0, 1.0
    model = Model(stride=1, drawn=torch.full((2, 2), 0.5))
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.zero_()
        for channel in range(3):
            model.conv.weight[channel, channel, 1, 1] = 1.0
        model.layer.weight.zero_()
        model.layer.weight[0, 0] = model.layer.weight[1, 1] = 1.0
    data = Batch((images,), Targets(torch.tensor([0, 1])), torch.arange(2))
    AttentionCrop(1.0, 0.0, "class").step(data, model.passes())
    left, right = model.shown[1]
    assert left[0].mean() > 0.8 > 0.2 > left[1].mean()
    assert right[1].mean() > 0.8 > 0.2 > right[0].mean()


def test_an_even_map_crops_and_drops_nothing():
    """A network whose map has one position looks nowhere."""
    model, data = Model(drawn=DRAWN), batch(5, 6, 6)
    torch.nn.init.zeros_(model.conv.weight)
    torch.nn.init.ones_(model.conv.bias)
    AttentionCrop(1.0, 1.0, "activation").step(data, model.passes())
    assert torch.equal(enlarged(torch.full((2, 1, 1), 0.7), (6, 6)), torch.zeros(2, 6, 6))
    for shown in model.shown:
        torch.testing.assert_close(shown, data.inputs)


def test_the_memory_layout_stays():
    images = torch.randn(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    found = crops(images, torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 2))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_without_maps_it_takes_one_pass():
    model, data = Model(), batch(3, 8, 8)
    passes = Passes(model.features, model.head, model.layer, model.loss)
    AttentionCrop(1.0, 1.0, "activation").step(data, passes)
    assert len(model.shown) == 1
