"""Schedules and parameter groups."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gsfl_tune.experiment.config import FinetuneStageConfig, HeadStageConfig
from gsfl_tune.training.optim import (
    WeightAverage,
    create_optimizer,
    lay_out_state,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
    training_point,
)


def test_warm_up_rises_to_the_peak_and_cosine_falls_to_zero():
    factors = [learning_rate_factor(s, 100, warmup=0.1, schedule="cosine") for s in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)


def test_constant_stays_at_the_peak_after_warm_up():
    factors = [learning_rate_factor(s, 10, warmup=0.2, schedule="constant") for s in range(10)]
    assert factors[2:] == [1.0] * 8
    assert 0 < factors[0] < factors[1] < 1


def test_no_weight_decay_on_biases_and_norms():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    groups = parameter_groups(module.parameters(), learning_rate=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(module[0].weight)] == 0.5
    assert decay[id(module[0].bias)] == decay[id(module[1].weight)] == 0.0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_rate_of_every_group_follows_its_own_peak(name):
    low, high = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = create_optimizer(
        HeadStageConfig(optimizer=name),
        parameter_groups(low.parameters(), learning_rate=0.01, weight_decay=0)
        + parameter_groups(high.parameters(), learning_rate=0.1, weight_decay=0),
    )
    set_learning_rate(optimizer, 0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.005, 0.05}
    before = low.weight.detach().clone()
    low(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, low.weight)


def test_weight_average_is_that_of_torch():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
    )
    module[0].requires_grad_(False)
    ours = WeightAverage(module, 0.8)
    theirs = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for _ in range(4):
        module(torch.randn(8, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        ours.update_parameters(module)
        theirs.update_parameters(module)
    for name, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected, msg=name)
    assert not torch.equal(ours.module[1].weight, module[1].weight)
    assert torch.equal(ours.module[2].running_mean, module[2].running_mean)


def test_muon_is_that_of_torch_for_matrices_and_adamw_for_the_rest():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(12, 8), nn.Conv2d(4, 6, 3), nn.Linear(8, 5))
    theirs = copy.deepcopy(ours)
    rate, decay = 0.02, 0.1
    hidden, head = [*ours[0].parameters(), *ours[1].parameters()], ours[2].parameters()
    groups = parameter_groups(hidden, learning_rate=rate, weight_decay=decay)
    groups += [
        {**group, "use_fallback": True}
        for group in parameter_groups(head, learning_rate=rate, weight_decay=decay)
    ]
    optimizer = create_optimizer(FinetuneStageConfig(optimizer="muon"), groups)
    # torch takes matrices alone: a convolution as one with a row for every output.
    rows = nn.Parameter(theirs[1].weight.detach().flatten(1).clone())
    muon = torch.optim.Muon(
        [theirs[0].weight, rows],
        lr=rate,
        weight_decay=decay,
        nesterov=False,
        adjust_lr_fn="match_rms_adamw",
    )
    plain = [theirs[0].bias, theirs[1].bias, theirs[2].bias]
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs[2].weight], "weight_decay": decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=rate,
    )
    for _ in range(4):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        rows.grad = theirs[1].weight.grad.flatten(1)
        for each in (optimizer, muon, adamw):
            each.step()
    with torch.no_grad():
        theirs[1].weight.copy_(rows.view_as(theirs[1].weight))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Matrices are made orthogonal in bf16.
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3)


def test_schedule_free_adamw_is_that_of_the_paper():
    """Algorithm 1, with x, y and z kept apart; the library keeps two of them in one place."""
    pytest.importorskip("schedulefree")
    torch.manual_seed(0)
    module = nn.Linear(6, 4).double()
    x = [p.detach().clone() for p in module.parameters()]
    z, v = [each.clone() for each in x], [torch.zeros_like(each) for each in x]
    peaks, decays, squares = (0.03, 0.01), (0.1, 0.0), [0.0, 0.0]
    groups = [
        {"params": [p], "weight_decay": decay, "lr": peak, "peak": peak}
        for p, decay, peak in zip(module.parameters(), decays, peaks, strict=True)
    ]
    optimizer = create_optimizer(FinetuneStageConfig(optimizer="schedule_free"), groups)
    target, step = torch.randn(5, 4, dtype=torch.double), 0
    for _ in range(3):
        with training_point(optimizer):  # as of an epoch
            for _ in range(4):
                inputs = torch.randn(5, 6, dtype=torch.double)
                factor = learning_rate_factor(step, 12, warmup=0.3, schedule="constant")
                y = [
                    (0.9 * one + 0.1 * other).requires_grad_()
                    for one, other in zip(x, z, strict=True)
                ]
                loss = (nn.functional.linear(inputs, *y) - target).square().sum()
                step += 1
                for i, gradient in enumerate(torch.autograd.grad(loss, y)):
                    rate = peaks[i] * factor
                    v[i] = 0.999 * v[i] + 0.001 * gradient.square()
                    change = gradient / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8)
                    z[i] = z[i] - rate * (change + decays[i] * y[i].detach())
                    squares[i] += rate**2
                    x[i] = x[i] + rate**2 / squares[i] * (z[i] - x[i])
                (module(inputs) - target).square().sum().backward()
                set_learning_rate(optimizer, factor)
                optimizer.step()
                optimizer.zero_grad()
        for found, expected in zip(module.parameters(), x, strict=True):
            torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_of_another_order_in_memory_is_of_the_same_elements(name):
    """Fused kernels would take the elements as they lie in memory."""
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 3, 2, 2), torch.randn(3, 4, 3, 2, 2)
    found = []
    for formats in ([torch.contiguous_format] * 2, [torch.contiguous_format, torch.channels_last]):
        weights, state = start, None
        for layout, of_step in zip(formats, gradients, strict=False):
            weight = torch.nn.Parameter(weights.clone(memory_format=layout))
            options: Any = {"momentum": 0.9} if name == "sgd" else {}
            kind = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
            optimizer = kind([weight], lr=0.1, fused=True, **options)
            if state is not None:
                optimizer.load_state_dict(state)
                lay_out_state(optimizer)
            weight.grad = of_step.clone(memory_format=layout)
            optimizer.step()
            weights, state = weight.detach(), optimizer.state_dict()
        found.append(weights)
    torch.testing.assert_close(*found)
