"""Unit features of a few classes whose images vary in the same directions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.caches.feature_table import FeatureTable

DIM = 16
# Dimensions in which images of a class differ.
VARYING = slice(0, 3)
SIZES = (30, 30, 30, 30, 3, 2)
SMALL = {
    "share": 0.5,
    "noise_dim": 8,
    "hidden_dim": 32,
    "steps": 120,
    "batch_size": 32,
    "learning_rate": 2e-3,
}


def settings(**changes: object) -> GenerateConfig:
    return GenerateConfig.model_validate({**SMALL, **changes})


def synthetic(views: int = 1) -> tuple[list[Tensor], np.ndarray]:
    """Returns features (N, D) of each view, and labels; the last 20 images are of no training."""
    random = torch.Generator().manual_seed(0)
    labels = np.concatenate([np.repeat(np.arange(len(SIZES)), SIZES), np.zeros(20, np.int64)])
    centres = torch.randn((len(SIZES), DIM), generator=random)
    tables = []
    for _ in range(views):
        change = 0.05 * torch.randn((len(labels), DIM), generator=random)
        change[:, VARYING] += 1.2 * torch.randn((len(labels), 3), generator=random)
        tables.append(functional.normalize(centres[torch.from_numpy(labels)] + change, dim=1))
    return tables, labels


def training_part() -> np.ndarray:
    return np.arange(sum(SIZES))


def table_of(tables: list[Tensor]) -> FeatureTable:
    return FeatureTable(tables, torch.device("cpu"))
