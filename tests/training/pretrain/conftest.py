"""Tiny networks and images to learn from without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gsfl_tune.data.contrast import JoinedImages
from gsfl_tune.training.pretrain import starting_backbone
from gsfl_tune.training.pretrain.network import PretrainingNetwork
from tests.training.conftest import tiny_config

pytest.importorskip("lightly")

SIZE, BATCH = 32, 12


def section(**changes: Any) -> dict[str, Any]:
    """A small section ``pretrain``."""
    return {
        "epochs": 2,
        "batch_size": 24,
        "hidden_dim": 16,
        "projection_dim": 8,
        "queue": 40,
        "prototypes": 32,
        **changes,
    }


def config_of(**changes: Any) -> Any:
    return tiny_config(model={"backbone": "test_resnet"}, pretrain=section(**changes))


def network_of(**changes: Any) -> PretrainingNetwork:
    config = config_of(**changes)
    network = PretrainingNetwork(starting_backbone(config), config.pretrain, SIZE, images=100)
    return network.train()


def strategy(**changes: Any) -> dict[str, Any]:
    return {
        "pair_weight": 0.7,
        "reconstruction_weight": 0.3,
        "decoder_width": 8,
        "fraction": 0.4,
        **changes,
    }


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (BATCH, 3, SIZE, SIZE)
    one = torch.randn(shape, generator=generator)
    return one, one + 0.3 * torch.randn(shape, generator=generator)


@pytest.fixture(scope="session")
def images(workspace):
    """Half of them, to save time."""
    dataset = workspace.dataset
    return JoinedImages([dataset.view(dataset.split.train[::2])])


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient_of(module: torch.nn.Module) -> np.ndarray:
    """All gradients of a module in a row; zeros where there is none."""
    rows = [
        torch.zeros(p.numel()) if p.grad is None else p.grad.detach().flatten()
        for p in module.parameters()
    ]
    return torch.cat(rows).numpy()
