"""Focal weights and logit adjustment against loops over images and classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from gsfl_tune.losses import Loss, Sizes
from gsfl_tune.losses.cross_entropy import cross_entropy_each
from gsfl_tune.models import HeadOutput

CLASSES, COUNT = 4, 6


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(COUNT, CLASSES, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([0, 3, 1, 1, 2, 0])


def shares(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_weights_are_those_of_the_paper(gamma, smoothing):
    logits, labels = scores()
    found = cross_entropy_each(logits, labels, label_smoothing=smoothing, focal=gamma)
    for row, label, value in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        p = shares(row)
        expected = 0.0
        for k in range(CLASSES):
            target = smoothing / CLASSES + (1 - smoothing if k == label else 0)
            expected -= target * (1 - p[k]) ** gamma * math.log(p[k])
        assert value == pytest.approx(expected, rel=1e-12)


def test_the_focal_loss_of_a_mixed_target_is_the_mix_of_the_losses():
    logits, labels = scores()
    others = labels.roll(1)
    eye = torch.eye(CLASSES, dtype=torch.float64)
    mixed = cross_entropy_each(logits, 0.7 * eye[labels] + 0.3 * eye[others], focal=1.5)
    one, other = (cross_entropy_each(logits, each, focal=1.5) for each in (labels, others))
    torch.testing.assert_close(mixed, 0.7 * one + 0.3 * other)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_weights_have_a_gradient_where_an_image_is_certain(gamma):
    logits, labels = scores()
    assert gradcheck(
        lambda x: cross_entropy_each(x, labels, label_smoothing=0.1, focal=gamma),
        (logits.clone().requires_grad_(),),
    )
    certain = torch.tensor([[80.0, -80.0]], requires_grad=True)
    for label in (0, 1):
        value = cross_entropy_each(certain, torch.tensor([label]), focal=gamma).sum()
        value.backward()
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(certain.grad).all())


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_loss_adds_shifts_weighs_images_and_classes(gamma):
    logits, labels = scores()
    shifts = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64)
    classes = torch.tensor([0.5, 2.0, 1.0, 0.8], dtype=torch.float64)
    weights = torch.linspace(0.5, 1.5, COUNT, dtype=torch.float64)
    d = torch.zeros(COUNT, 3, dtype=torch.float64)
    loss = Loss(Sizes(3, 3, CLASSES), {}, focal=gamma, shifts=shifts, class_weights=classes)
    found = loss.double()(
        HeadOutput(logits, d, None, None), d, labels, d[:CLASSES], weights=weights
    )
    expected = 0.0
    for i, label in enumerate(labels.tolist()):
        p = shares((logits[i] + shifts).tolist())
        focal = (1 - p[label]) ** gamma
        expected -= float(weights[i]) * float(classes[label]) * focal * math.log(p[label])
    assert float(found.total) == pytest.approx(expected / COUNT, rel=1e-12)
    assert not loss.state_dict()


def test_scores_that_say_the_priors_alone_cost_what_chance_does():
    """With tau 1, a model that knows nothing minimises the loss with equal scores."""
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    shifts = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    loss = Loss(Sizes(2, 2, 3), {}, shifts=(shifts / shifts.sum()).log())
    d = torch.zeros(10, 2, dtype=torch.float64)
    row = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    output = HeadOutput(row.expand(10, 3), d, None, None)
    loss(output, d, labels, d[:3]).total.backward()
    torch.testing.assert_close(row.grad, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
