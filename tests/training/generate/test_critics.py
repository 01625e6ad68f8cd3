"""Losses of generator and critics, against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gsfl_tune.training.generate import CRITICS, FeatureGenerator
from gsfl_tune.training.generate._base import Draw
from gsfl_tune.training.generate.instance import InstanceCritic, instance_loss
from gsfl_tune.training.generate.relation import RelationCritic
from gsfl_tune.training.generate.terms import class_loss, collapse
from gsfl_tune.training.generate.wasserstein import WassersteinCritic, gradient_penalty

from .synthetic import settings

B, D, Z = 5, 6, 4
SMALL = {"hidden_dim": 7, "noise_dim": Z}


def unit(rows: int, columns: int) -> Tensor:
    found = torch.randn(rows, columns, dtype=torch.float64)
    return found / found.norm(dim=1, keepdim=True)


@pytest.fixture
def draw() -> Draw:
    torch.manual_seed(0)
    noise = torch.randn(2, B, Z, dtype=torch.float64)
    return Draw(unit(B, D), torch.tensor([0, 1, 2, 0, 1]), unit(B, D), noise[0], noise[1])


@pytest.fixture
def generator() -> FeatureGenerator:
    torch.manual_seed(1)
    return FeatureGenerator(D, Z, 7).double()


def number(value: Tensor) -> float:
    return float(value.detach())


def layer(weights: Tensor, bias: Tensor, inputs: list[float]) -> list[float]:
    return [
        sum(w * x for w, x in zip(row, inputs, strict=True)) + b
        for row, b in zip(weights.tolist(), bias.tolist(), strict=True)
    ]


def leaky(values: list[float]) -> list[float]:
    return [each if each > 0 else 0.2 * each for each in values]


def test_a_feature_is_its_condition_with_a_change_and_has_length_one(draw, generator):
    for s, z, made in zip(
        draw.condition.tolist(),
        draw.noise.tolist(),
        generator(draw.condition, draw.noise),
        strict=True,
    ):
        first, second = generator.first, generator.second
        inputs = [math.sqrt(D) * each for each in s] + z
        change = layer(second.weight, second.bias, leaky(layer(first.weight, first.bias, inputs)))
        summed = [a + b / math.sqrt(D) for a, b in zip(s, change, strict=True)]
        length = math.sqrt(sum(each * each for each in summed))
        assert made.tolist() == pytest.approx([each / length for each in summed])


def slope_of(critic: WassersteinCritic, x: list[float], s: list[float]) -> list[float]:
    """The gradient of D(x, s) for x, from the weights."""
    inputs = [math.sqrt(D) * each for each in x + s]
    hidden = layer(critic.first.weight, critic.first.bias, inputs)
    factors = [1.0 if each > 0 else 0.2 for each in hidden]
    out, inside = critic.second.weight.tolist()[0], critic.first.weight.tolist()
    return [
        math.sqrt(D) * sum(o * f * row[k] for o, f, row in zip(out, factors, inside, strict=True))
        for k in range(D)
    ]


def score_of(critic: WassersteinCritic, x: list[float], s: list[float]) -> float:
    inputs = [math.sqrt(D) * each for each in x + s]
    hidden = leaky(layer(critic.first.weight, critic.first.bias, inputs))
    return layer(critic.second.weight, critic.second.bias, hidden)[0]


def test_the_wasserstein_critic_has_the_distance_and_the_penalty(draw, generator):
    critic = WassersteinCritic(D, settings(gradient_penalty=3.0, **SMALL)).double()
    made, kept = generator(draw.condition, draw.noise).detach(), torch.rand(B, 1).double()
    expected = 0.0
    for x, g, s, e in zip(
        draw.real.tolist(), made.tolist(), draw.condition.tolist(), kept[:, 0].tolist(), strict=True
    ):
        between = [e * a + (1 - e) * b for a, b in zip(x, g, strict=True)]
        length = math.sqrt(sum(each**2 for each in slope_of(critic, between, s)))
        expected += score_of(critic, g, s) - score_of(critic, x, s) + 3 * (length - 1) ** 2
    assert number(critic.distance(draw, made, kept)) == pytest.approx(expected / B)
    wanted = -sum(map(score_of, [critic] * B, made.tolist(), draw.condition.tolist())) / B
    assert number(critic.generator_loss(generator, draw, made)) == pytest.approx(wanted)


def test_the_penalty_moves_a_slope_towards_one():
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ weight, unit(B, 2))
    assert number(penalty) == pytest.approx((5 - 1) ** 2)
    penalty.backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    assert weight.grad.tolist() == pytest.approx([8 * 3 / 5, 8 * 4 / 5])


def test_a_slope_of_zero_has_a_finite_gradient():
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    gradient_penalty(lambda x: x @ weight, unit(B, 2)).backward()
    assert weight.grad.isfinite().all()


def test_the_relation_critic_has_the_triplet_loss(draw, generator):
    critic = RelationCritic(D, settings(margin=0.3, **SMALL)).double()
    made = generator(draw.condition, draw.noise).detach()

    def related(a: list[float], b: list[float]) -> float:
        inputs = [math.sqrt(D) * abs(p - q) for p, q in zip(a, b, strict=True)]
        inputs += [D * p * q for p, q in zip(a, b, strict=True)]
        hidden = leaky(layer(critic.first.weight, critic.first.bias, inputs))
        return layer(critic.second.weight, critic.second.bias, hidden)[0]

    theirs = ours = 0.0
    rows = zip(draw.condition.tolist(), draw.real.tolist(), made.tolist(), strict=True)
    for s, x, g in rows:
        assert related(s, g) == pytest.approx(related(g, s))
        theirs += max(0.0, 0.3 + related(s, g) - related(s, x)) / B
        ours += max(0.0, 0.3 + related(s, x) - related(s, g)) / B
    assert number(critic.critic_loss(generator, draw)) == pytest.approx(theirs)
    assert number(critic.generator_loss(generator, draw, made)) == pytest.approx(ours)


def test_an_instance_is_told_from_all_others():
    one, other = unit(B, 3), unit(B, 3)
    expected = 0.0
    for i in range(B):
        scores = [math.exp(float(one[i] @ other[j]) / 0.5) for j in range(B)]
        expected -= math.log(scores[i] / sum(scores)) / B
    assert float(instance_loss(one, other, 0.5)) == pytest.approx(expected)
    assert float(instance_loss(one, one, 0.01)) < 0.01


def test_without_its_weight_the_instance_critic_is_the_wasserstein_critic(draw, generator):
    critic = InstanceCritic(D, settings(instance_weight=0, **SMALL)).double()
    more = InstanceCritic(D, settings(instance_weight=0.5, **SMALL)).double()
    more.load_state_dict(critic.state_dict())
    made = generator(draw.condition, draw.noise)
    base = WassersteinCritic.generator_loss(critic, generator, draw, made)
    assert number(critic.generator_loss(generator, draw, made)) == number(base)
    assert number(more.generator_loss(generator, draw, made)) > number(base)


def test_classes_are_those_of_the_nearest_means():
    made, means = unit(B, D), unit(4, D)
    labels, known = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([True, True, True, False])
    expected = 0.0
    for row, label in zip(made, labels.tolist(), strict=True):
        scores = [math.exp(10 * float(row @ means[k])) for k in range(3)]
        expected -= math.log(scores[label] / sum(scores)) / B
    assert float(class_loss(made, labels, means, known)) == pytest.approx(expected)


def test_features_that_do_not_vary_with_the_noise_cost_most(draw):
    made, others = unit(B, D), unit(B, D)
    ratios = []
    for a, b, z, w in zip(made, others, draw.noise, draw.further, strict=True):
        wanted = 1 - float(z @ w) / math.sqrt(float(z @ z) * float(w @ w))
        ratios.append((1 - float(a @ b)) / wanted)
    expected = 1 / (sum(ratios) / B)
    found = collapse(made, others, draw.noise, draw.further)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(collapse(made, made, draw.noise, draw.further)) > 1e5


@pytest.mark.parametrize("name", CRITICS)
def test_the_loss_of_a_critic_teaches_the_critic_alone(name, draw, generator):
    critic = CRITICS[name](D, settings(critic=name, **SMALL)).double()
    critic.critic_loss(generator, draw).backward()
    assert all(each.grad is None for each in generator.parameters())
    # The last bias is the same for all features.
    assert all(each.grad.abs().sum() > 0 for each in critic.parameters() if each.numel() > 1)
    made = generator(draw.condition, draw.noise)
    critic.generator_loss(generator, draw, made).backward()
    assert all(each.grad.abs().sum() > 0 for each in generator.parameters())
