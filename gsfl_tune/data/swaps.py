"""Gives a share of the images of a batch something of another image of the same batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError

Change = Callable[[Tensor, Tensor], Tensor]


def swap_images(
    batch: Batch, streams: Streams, *, name: str, share: float, change: Change
) -> Batch:
    """Changes a share of the images of a batch, all their views alike.

    Args:
        batch: Of normalised images (B, 3, h, w).
        streams: Of the epoch; that of `name` is for this, and every batch goes on with it.
        name: Key of the finetune stage, for the stream and for errors.
        share: Of the images that are changed; with 0 the batch is returned as it is.
        change: Takes images and the images whose properties they get, both (B, 3, h, w).

    Raises:
        UserError: If the views are not images.
    """
    if share <= 0:
        return batch
    generator = streams(name)
    count, device = len(batch), batch.labels.device
    order = torch.randperm(count, generator=generator).to(device)
    chosen = (torch.rand(count, generator=generator) < share).to(device)
    views = []
    for view in batch.views:
        if view.ndim != 4 or view.shape[1] != 3:
            raise UserError(
                f"training.finetune.{name}: found cached activations (data.views with "
                "training.finetune.blocks: n), allowed: 0, or images (data.views: 0)"
            )
        changed = change(view, view[order])
        views.append(torch.where(chosen[:, None, None, None], changed, view))
    return replace(batch, views=tuple(views))
