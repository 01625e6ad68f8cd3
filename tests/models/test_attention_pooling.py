"""Learned attention over the positions of a map."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gsfl_tune.models import create_pooling


def trained(channels, heads):
    torch.manual_seed(0)
    pooling = create_pooling("attention", channels, heads=heads).double()
    nn.init.normal_(pooling.queries, std=3.0)
    return pooling


@pytest.mark.parametrize(("channels", "heads", "taken"), [(12, 4, 4), (12, 8, 4), (7, 8, 1)])
def test_it_is_the_weighted_mean_of_its_equation(channels, heads, taken):
    pooling = trained(channels, heads)
    queries = pooling.queries.detach().numpy()
    assert len(queries) == taken
    maps = torch.randn(3, channels, 2, 3, dtype=torch.float64)
    expected = np.zeros((3, channels))
    for image, own in enumerate(maps.flatten(2).numpy()):
        size = channels // taken
        for head, query in enumerate(queries):
            scores = []
            for position in own.T:
                known = (position - position.mean()) / math.sqrt(position.var() + 1e-5)
                scores.append(math.exp(query @ known / math.sqrt(channels)))
            for score, position in zip(scores, own.T, strict=True):
                share = slice(head * size, (head + 1) * size)
                expected[image, share] += score / sum(scores) * position[share]
    np.testing.assert_allclose(pooling(maps).detach().numpy(), expected, rtol=1e-9)
    assert np.abs(expected - maps.mean((2, 3)).numpy()).max() > 0.1


def test_it_weights_positions_as_attention_with_projections_does():
    channels, heads = 12, 3
    torch.manual_seed(1)
    attention = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True).double()
    query = torch.randn(1, 1, channels, dtype=torch.float64)
    maps = torch.randn(2, channels, 3, 3, dtype=torch.float64)
    positions = maps.flatten(2).transpose(1, 2)
    with torch.no_grad():
        of_queries, of_keys, of_values = attention.in_proj_weight.chunk(3)
        for projection in (of_values, attention.out_proj.weight):
            projection.copy_(torch.eye(channels))
        keys = functional.layer_norm(positions, (channels,))
        expected, _ = attention(query.expand(2, -1, -1), keys, positions)
        pooling = create_pooling("attention", channels, heads=heads).double()
        asked = (of_queries @ query.flatten()).unflatten(0, (heads, -1))
        own = torch.einsum("mi,mic->mc", asked, of_keys.unflatten(0, (heads, -1)))
        pooling.queries.copy_(math.sqrt(heads) * own)
        torch.testing.assert_close(pooling(maps), expected[:, 0])


def test_its_gradient_is_right_and_moves_it_from_the_mean():
    pooling = create_pooling("attention", 4, heads=2).double()
    maps = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)

    def pooled(maps, queries):
        return torch.func.functional_call(pooling, {"queries": queries}, (maps,))

    assert torch.autograd.gradcheck(pooled, (maps, pooling.queries))
    torch.testing.assert_close(pooling(maps), maps.mean((2, 3)))
    pooling(maps).square().sum().backward()
    assert pooling.queries.grad.abs().min() > 0
