"""Losses of the methods, against their equations written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.training.pretrain.base import rising, unchanged
from gsfl_tune.training.pretrain.bases import BASES, create_base
from tests.training.pretrain.conftest import section

CHANNELS, IMAGES = 10, 50


def make(method, **changes):
    torch.manual_seed(0)
    config = PretrainConfig(**section(method=method, **changes))
    return create_base(CHANNELS, config, IMAGES).train()


def vectors(count=2, rows=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, CHANNELS, generator=generator) for _ in range(count)]


def cosine(a, b):
    a, b = a.detach().double().numpy(), b.detach().double().numpy()
    each = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]
    return float(np.mean(each))


def test_simsiam_is_the_mean_of_both_negative_cosines():
    base, views = make("simsiam"), vectors()
    z = [base.project(view) for view in views]
    p = [base.predict(each) for each in z]
    expected = -(cosine(p[0], z[1]) + cosine(p[1], z[0])) / 2
    assert float(base(views).detach()) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_simsiam_does_not_reach_what_is_compared_with():
    base = make("simsiam")
    one, other = (view.requires_grad_() for view in vectors())
    found = torch.autograd.grad(base([one, other]), one)[0]
    with torch.no_grad():
        still = base.project(other.detach())
    own = base.compare(base.predict(base.project(one)), still) / 2
    assert torch.allclose(found, torch.autograd.grad(own, one)[0], atol=1e-7)


def test_byol_compares_predictions_with_the_averaged_projection():
    base, views, taught = make("byol"), vectors(), vectors(seed=2)
    with torch.no_grad():
        base.teach.layers[0].weight.add_(0.1)
    p = [base.predict(base.project(view)) for view in views]
    z = [base.teach(view) for view in taught]
    expected = -(cosine(p[0], z[1]) + cosine(p[1], z[0])) / 2
    assert float(base(views, taught).detach()) == pytest.approx(expected, abs=1e-6)


def test_moco_is_the_cross_entropy_of_the_key_among_the_queue():
    base, views, taught = make("moco", temperature=0.3), vectors(1), vectors(1, seed=2)
    queue = base.queue.keys.clone().double().numpy()
    assert len(queue) == 40
    q = functional.normalize(base.project(views[0]), dim=1).detach().double().numpy()
    k = functional.normalize(base.teach(taught[0]), dim=1).detach().double().numpy()
    losses = []
    for query, key in zip(q, k, strict=True):
        scores = np.array([query @ key, *(query @ other for other in queue)]) / 0.3
        losses.append(math.log(np.exp(scores).sum()) - scores[0])
    assert float(base(views, taught).detach()) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert np.allclose(base.queue.keys[:9], k, atol=1e-6)


def test_the_queue_is_never_longer_than_the_images():
    assert len(make("moco", queue=4096).queue.keys) == IMAGES


def test_keys_of_the_querys_own_image_are_no_negatives():
    """Over two epochs: the queue then holds a key of nearly every image."""
    base, order = make("moco", queue=4096, temperature=0.3), torch.Generator().manual_seed(0)
    keys, shown, left_out = [], [], 0
    for _ in range(2):
        for place in torch.randperm(IMAGES, generator=order).split(9)[:5]:
            views, taught = vectors(1, seed=len(keys)), vectors(1, seed=100 + len(keys))
            with torch.no_grad():
                q = functional.normalize(base.project(views[0]), dim=1).double()
                k = functional.normalize(base.teach(taught[0]), dim=1).double()
            start = base.queue.keys.clone().double()
            losses = []
            for row, image in enumerate(place.tolist()):
                kept = [n for n, own in enumerate(base.queue.positions.tolist()) if own != image]
                left_out += IMAGES - len(kept)
                scores = torch.stack([q[row] @ k[row], *(start[n] @ q[row] for n in kept)]) / 0.3
                losses.append(scores.logsumexp(0) - scores[0])
            loss = base(views, taught, positions=place)
            assert float(loss.detach()) == pytest.approx(
                float(torch.stack(losses).mean()), rel=1e-5
            )
            keys.append(k)
            shown.append(place)
    assert left_out >= 20  # of 45 queries in the second epoch
    # The last 50 keys and the images that they are of, oldest first from `place` on.
    turned = base.queue.positions.roll(-int(base.queue.place))
    assert torch.equal(turned, torch.cat(shown)[-IMAGES:])
    held = base.queue.keys.double().roll(-int(base.queue.place), 0)
    assert torch.allclose(held, torch.cat(keys)[-IMAGES:], atol=1e-6)


def test_vicreg_is_the_weighted_sum_of_its_three_terms():
    base, views = make("vicreg"), vectors()
    a, b = (base.project(view).detach().double().numpy() for view in views)
    apart = ((a - b) ** 2).mean()

    def variance(z):
        return np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean()

    def covariance(z):
        matrix = np.cov(z.T)
        np.fill_diagonal(matrix, 0)
        return (matrix**2).sum() / z.shape[1]

    expected = 25 * apart + 25 * (variance(a) + variance(b)) / 2 + covariance(a) + covariance(b)
    assert float(base(views).detach()) == pytest.approx(expected, rel=1e-5)


def test_dino_is_the_cross_entropy_of_the_other_view_and_moves_the_centre():
    base, views, taught = make("dino", temperature=0.2), vectors(), vectors(seed=2)
    with torch.no_grad():
        base.compare.center.normal_(std=0.1)
    center = base.compare.center[0].double()
    teachers = [base.teach(view).double() for view in taught]
    targets = [((t - center) / 0.04).softmax(1) for t in teachers]
    logs = [(base.project(view).double() / 0.2).log_softmax(1) for view in views]
    losses = [-(targets[t] * logs[s]).sum(1).mean() for t, s in ((0, 1), (1, 0))]
    loss = base(views, taught)
    assert float(loss.detach()) == pytest.approx(float(sum(losses).detach() / 2), rel=1e-5)
    moved = 0.9 * center + 0.1 * torch.cat(teachers).mean(0)
    assert torch.allclose(base.compare.center[0].double(), moved, atol=1e-6)


def test_prototypes_of_dino_stay_in_the_first_epoch():
    base = make("dino")
    for epoch, moves in ((0, False), (1, True)):
        base(vectors(), vectors(seed=2)).backward()
        base.after_backward(epoch)
        assert (base.project.last_layer.weight_v.grad is not None) == moves


def test_lejepa_weighs_distance_and_gaussianity():
    base, views = make("lejepa", sketch_weight=0.3), vectors()
    z = torch.stack([base.project(view) for view in views]).detach().double().numpy()
    apart = ((z - z.mean(0)) ** 2).mean()
    torch.manual_seed(7)
    found = float(base(views).detach())
    torch.manual_seed(7)
    slices = torch.randn(z.shape[2], 1024).double().numpy()
    slices /= np.linalg.norm(slices, axis=0)
    knots = np.linspace(0, 3, 17)
    statistics = []
    for view in z:
        lines = (view @ slices)[:, :, None] * knots
        target = np.exp(-(knots**2) / 2)
        error = (np.cos(lines).mean(0) - target) ** 2 + np.sin(lines).mean(0) ** 2
        # Over -3 to 3: twice the integral of an even function.
        statistics.append(2 * np.trapezoid(error * target, knots, axis=1) * len(view))
    expected = 0.3 * np.mean(statistics) + 0.7 * apart
    assert found == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("method", BASES)
def test_what_a_method_remembers_can_be_kept(method):
    base = make(method)
    taught = vectors(len(base.taught), seed=2)
    base(vectors(len(base.shown)), taught)
    before = {name: buffer.clone() for name, buffer in base.named_buffers()}
    with unchanged(base):
        base(vectors(len(base.shown), seed=4), taught).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in base.named_buffers())


def test_the_decay_of_an_average_rises_to_one():
    assert [rising(0.9, x) for x in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
