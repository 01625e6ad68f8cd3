"""SnapMix against a loop over images, with torch's own resizing of a box."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.methods import Passes
from gsfl_tune.methods.snapmix import Boxes, SnapMix, paste

from .images import Model, batch

COUNT, HEIGHT, WIDTH = 6, 12, 16
DRAWN = torch.rand(COUNT, 8, generator=torch.Generator().manual_seed(5))


def plain_box(area, down, across):
    """Of a share of the area: top, left, height and width in pixels."""
    height, width = round(area**0.5 * HEIGHT), round(area**0.5 * WIDTH)
    return int(down * (HEIGHT - height + 1)), int(across * (WIDTH - width + 1)), height, width


def plain_share(model, image, label):
    """The class activation map of a linear head on the mean, as shares of its sum."""
    maps = model.conv(image[None]).relu()[0]
    low = torch.einsum("c,chw->hw", model.layer.weight[label], maps)
    large = functional.interpolate(low[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0]
    large = large - large.min()
    return large / large.sum()


def beta_quantile(alpha, share):
    """By bisection of the distribution function, itself a sum."""
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64)[1:-1]
    density = (grid * (1 - grid)).pow(alpha - 1)
    below = density.cumsum(0) / density.sum()
    return float(grid[int((below < share).sum())])


@pytest.mark.parametrize("probability", [1.0, 0.5, 0.0])
@torch.no_grad()
def test_boxes_and_weights_are_those_of_the_paper(probability):
    alpha = 2.0
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    images, labels = data.inputs, data.labels
    order = DRAWN[:, 0].argsort()
    mixed, total, larger = images.clone(), 0.0, []
    for one in range(COUNT):
        other = int(order[one])
        kept, pasted = 1.0, 0.0
        u = DRAWN[one].tolist()
        if u[1] < probability:
            areas = [1 - beta_quantile(alpha, each) for each in u[2:4]]
            top, left, height, width = plain_box(areas[0], u[4], u[5])
            y, x, h, w = plain_box(areas[1], u[6], u[7])
            patch = functional.interpolate(
                images[other : other + 1, :, y : y + h, x : x + w], (height, width), mode="bilinear"
            )
            mixed[one, :, top : top + height, left : left + width] = patch[0]
            own = plain_share(model, images[one], labels[one])
            kept = 1 - float(own[top : top + height, left : left + width].sum())
            theirs = plain_share(model, images[other], labels[other])
            pasted = float(theirs[y : y + h, x : x + w].sum())
        log_p = model.layer(model.pool(model.conv(mixed[one : one + 1]).relu())).log_softmax(1)[0]
        total -= kept * float(log_p[labels[one]]) + pasted * float(log_p[labels[other]])
        larger.append(int(labels[one] if kept >= pasted else labels[other]))
    terms = SnapMix(alpha, probability).step(data, model.passes())
    torch.testing.assert_close(model.shown[-1], mixed, atol=1e-9, rtol=1e-9)
    assert float(terms.cross_entropy) == pytest.approx(total / COUNT, rel=1e-6)
    # The model's other term is 0.5.
    assert float(terms.total) == pytest.approx(total / COUNT + 0.5, rel=1e-6)
    # Terms note every image once, with the label that counts more.
    ((note, noted),) = model.noted
    assert note
    assert noted.tolist() == larger


def test_weights_of_one_class_add_up():
    """Of images that are all alike, a box in the same place loses and pastes the same."""
    drawn = DRAWN.clone()
    drawn[:, 3], drawn[:, 6:] = drawn[:, 2], drawn[:, 4:6]
    model = Model(drawn=drawn)
    images = batch(1, HEIGHT, WIDTH).inputs.expand(COUNT, -1, -1, -1)
    data = Batch((images,), Targets(torch.ones(COUNT, dtype=torch.long)), torch.arange(COUNT))
    terms = SnapMix(5.0, 1.0).step(data, model.passes())
    torch.testing.assert_close(model.shown[-1], images)
    expected = functional.cross_entropy(model.layer(model.features(images)), data.labels)
    assert float(terms.cross_entropy.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


def test_the_pass_for_the_maps_has_no_gradient_and_the_loss_has():
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    SnapMix(5.0, 1.0).step(data, model.passes()).total.backward()
    assert len(model.shown) == 2
    assert torch.equal(model.shown[0], data.inputs)
    assert model.conv.weight.grad.any()
    assert model.layer.weight.grad.any()


def test_a_map_without_evidence_counts_all_places_alike():
    model, data = Model(drawn=DRAWN), batch(COUNT, HEIGHT, WIDTH)
    torch.nn.init.zeros_(model.layer.weight)
    terms = SnapMix(5.0, 1.0).step(data, model.passes())
    assert torch.isfinite(terms.total.detach())
    shares = SnapMix(5.0, 1.0)._shares(data, model.passes())
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / (HEIGHT * WIDTH)))


def test_nothing_beside_the_box_is_pasted():
    images, others = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 9.0)
    others[:, :, 2:4, 4:7] = 1.0

    def box(*edges):
        return Boxes(*(torch.tensor([each]) for each in edges))

    found = paste(images, others, box(1, 0, 6, 7), box(2, 4, 2, 3))
    expected = torch.zeros(8, 8)
    expected[1:7, 0:7] = 1.0
    torch.testing.assert_close(found[0], expected.expand(3, 8, 8))


def test_without_maps_it_takes_one_pass():
    model, data = Model(), batch(3, 8, 8)
    passes = Passes(model.features, model.head, model.layer, model.loss)
    SnapMix(5.0, 1.0).step(data, passes)
    assert len(model.shown) == 1
