"""Groups of a batch, in each of which batch norms take their statistics.

A positive key is the only key that was made in the same step as its query. Were both normalised
with the statistics of the same images, the network could find the key by them and learn nothing
else. Source: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR
2020, section 3.3 (shuffling BN). There the groups are the GPUs' parts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.training.batch_norm import momenta_kept, norms_in_training


def groups_of(config: PretrainConfig, backbone: nn.Module) -> int:
    """Returns the number of groups; 1 where nothing has to be kept apart."""
    has_norms = any(isinstance(module, _BatchNorm) for module in backbone.modules())
    return config.groups if has_norms else 1


def maps_in_groups(
    forward: Callable[[Tensor], Tensor],
    module: nn.Module,
    views: Sequence[Tensor],
    parts: Sequence[slice],
) -> list[Tensor]:
    """Passes views (b, ...) of the same images through a module, each part of the images by itself.

    The running statistics move as for one batch, to the mean of those of the parts.

    Args:
        forward: Passes images through the module.
        module: Has the batch norms.
        views: The views, which pass together.
        parts: Which images pass together.

    Returns:
        The maps of each view, of all images.
    """
    found = []
    with _one_update(module, len(parts)) as begin:
        for number, part in enumerate(parts):
            begin(number)
            together = forward(torch.cat([view[part] for view in views]))
            found.append(together.split(part.stop - part.start))
    return [torch.cat(each) for each in zip(*found, strict=True)]


def shuffled(count: int, groups: int, device: torch.device) -> Tensor:
    """Returns an order (B,) in which every group takes equally many images of each one before.

    It draws no numbers: images are in a new order in every epoch anyway.
    """
    positions = torch.arange(count, device=device)
    return torch.cat([positions[first::groups] for first in range(groups)])


def statistics(module: nn.Module) -> list[Tensor]:
    """Lists the running statistics of a module's batch norms."""
    norms = norms_in_training(module, tracking=True)
    pairs = [(one.running_mean, one.running_var) for one in norms]
    return [each for pair in pairs for each in pair if each is not None]


@contextmanager
def _one_update(module: nn.Module, groups: int) -> Iterator[Callable[[int], None]]:
    """Lets the running statistics move as for one batch while groups pass one after the other.

    After it they are (1 - m) times what they were and m times the mean over the groups, in whatever
    order these passed.

    Yields:
        Must be called with the number of each group before it passes.
    """
    norms = norms_in_training(module, tracking=True)

    def factor(norm: _BatchNorm) -> float:
        if norm.momentum is not None:
            return float(norm.momentum)
        seen = norm.num_batches_tracked
        return 1.0 if seen is None else 1 / (int(seen) + 1)

    factors = [factor(one) for one in norms]

    def begin(number: int) -> None:
        following = groups - 1 - number
        for one, whole in zip(norms, factors, strict=True):
            one.momentum = whole / (groups - following * whole)

    with momenta_kept(norms):
        yield begin
    for one in norms:
        if one.num_batches_tracked is not None:
            one.num_batches_tracked.sub_(groups - 1)
