"""The attributes that a training learns besides the classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.methods import ATTRIBUTE_METHODS
from gsfl_tune.training.workspace import Workspace

_ALLOWED = "source cub, or data.attribute_columns (sources csv, jsonl)"


def training_attributes(
    config: Config, workspace: Workspace, positions: np.ndarray
) -> Tensor | None:
    """Returns attributes of the pool's images, (N, A) float32; NaN for unknown ones.

    Args:
        config: The configuration.
        workspace: Data of this node.
        positions: Positions of the training images; attributes of others are never read.

    Returns:
        None where nothing learns them: neither ``loss.attributes`` nor the method.

    Raises:
        UserError: If the training images have none, or attributes are not probabilities.
    """
    learns = _learns(config)
    if learns is None:
        return None
    path, value, otherwise = learns
    found = workspace.dataset.annotations("pool")
    values = found.attributes[positions]
    if not np.isfinite(values).any():
        raise UserError(
            f"{path}: found {value}, but no training image has a known attribute; allowed "
            f"{otherwise}, {_ALLOWED}"
        )
    with np.errstate(invalid="ignore"):
        odd = ((values < 0) | (values > 1)).any(0)
    if odd.any():
        column = int(np.flatnonzero(odd)[0])
        outside = next(v for v in values[:, column].tolist() if v < 0 or v > 1)
        raise UserError(
            f"{path}: found the value {outside:g} of the attribute "
            f"{found.attribute_names[column]}, allowed 0 (absent) to 1 (present)"
        )
    return torch.from_numpy(np.ascontiguousarray(found.attributes))


def _learns(config: Config) -> tuple[str, str, str] | None:
    """Returns the leaf that asks for attributes, its value, and another that asks for none."""
    weight = config.loss.attributes.weight
    if weight:
        return "loss.attributes.weight", f"{weight:g}", "0"
    method = config.training.method
    if method in ATTRIBUTE_METHODS and config.training.finetune.epochs:
        return "training.method", method, "another method"
    return None
