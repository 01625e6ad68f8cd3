"""The attributes that a training learns besides the classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training.workspace import Workspace

_ALLOWED = "allowed 0, source cub, or data.attribute_columns (sources csv, jsonl)"


def training_attributes(
    config: Config, workspace: Workspace, positions: np.ndarray
) -> Tensor | None:
    """Returns attributes of the pool's images, (N, A) float32; NaN for unknown ones.

    Args:
        config: The configuration.
        workspace: Data of this node.
        positions: Positions of the training images; attributes of others are never read.

    Returns:
        None without ``loss.attributes``.

    Raises:
        UserError: If the training images have none, or attributes are not probabilities.
    """
    weight = config.loss.attributes.weight
    if not weight:
        return None
    found = workspace.dataset.annotations("pool")
    values = found.attributes[positions]
    if not np.isfinite(values).any():
        raise UserError(
            f"loss.attributes.weight: found {weight:g}, but no training image has a known "
            f"attribute; {_ALLOWED}"
        )
    with np.errstate(invalid="ignore"):
        odd = ((values < 0) | (values > 1)).any(0)
    if odd.any():
        column = int(np.flatnonzero(odd)[0])
        value = next(v for v in values[:, column].tolist() if v < 0 or v > 1)
        raise UserError(
            f"loss.attributes.weight: found the value {value:g} of the attribute "
            f"{found.attribute_names[column]}, allowed 0 (absent) to 1 (present)"
        )
    return torch.from_numpy(np.ascontiguousarray(found.attributes))
