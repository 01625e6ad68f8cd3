"""Inputs of modules that find something on a map and join it to unit features."""

from __future__ import annotations

import torch
from torch import nn

from gsfl_tune.models import create_backbone, create_head, create_pooling

CHANNELS, WIDTH, DIM = 7, 4, 6


def as_if_trained(module):
    """Makes a module one of float64 with random parameters."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, 0, 0.4)
    return module


def maps_of(count=2, height=4, width=5):
    """Draws maps."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, CHANNELS, height, width, generator=generator, dtype=torch.float64)


def units(count=2):
    """Draws unit features."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(count, DIM, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def parts_of_network(pooling, backbone):
    """Makes a backbone, its pooling, a plain head, and counts the channels of its map."""
    body = create_backbone(backbone, "none", reads="head" if pooling == "native" else "map")
    pool = create_pooling(pooling, body.channels)
    head = create_head("plain", pool.dim, 5, latent_dim=8, dropout=0.0, feature_scale=2.0)
    return body, pool, head, body.maps(torch.zeros(1, 3, 64, 64)).shape[1]
