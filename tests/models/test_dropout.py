"""Dropout on the CPU: rate, scale, gradient, and who decides the mask."""

import pytest
import torch

from gsfl_tune.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.05, 0.28, 0.7])
def test_rate_and_expected_value(p):
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1001, 997))
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=2e-3)
    assert float(out.mean()) == pytest.approx(1, abs=4e-3)
    assert len(out.unique()) == 2


def test_neighbours_and_rows_are_independent():
    torch.manual_seed(1)
    dropped = (Dropout(0.5)(torch.ones(2048, 1024)) == 0).float() - 0.5
    for shift in (1, 2, 3, 4):
        assert abs(float((dropped[:, shift:] * dropped[:, :-shift]).mean())) < 1e-3
    assert abs(float((dropped[1:] * dropped[:-1]).mean())) < 1e-3


def test_the_gradient_passes_where_the_value_does():
    torch.manual_seed(2)
    x = torch.randn(64, 33, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_the_seed_decides_the_mask():
    x = torch.ones(3, 5, 7)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(Dropout(0.5)(x))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = torch.randn(8, 8)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_almost_everything_may_be_dropped():
    out = Dropout(0.999999)(torch.ones(100_000))
    assert torch.isfinite(out).all()
