"""Class centres and the means of the groups' centres."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassCenters(nn.Module):
    """Keeps one centre per class in the space of the discriminative part, without gradient.

    The rule, from Wen et al., "A Discriminative Feature Learning Approach for Deep Face
    Recognition", ECCV 2016: c_k -= rate * sum(c_k - d_i) / (1 + n_k) over the n_k samples of a
    class. `accumulate` collects over micro-batches, `step` applies once an optimiser step.

    Args:
        groups: (C,) group of every class, 0 .. K - 1, no group empty.
        latent_dim: H.

    Attributes:
        centers: (C, H) float32, zero at the start.
        groups: (C,) int64.
        group_sizes: (K,) classes of every group.
        pending_sum: (C, H) sum of the parts d since the last step. Under DDP ranks sum it and
            `pending_count` before they call `step`. Neither is saved.
        pending_count: (C,) samples since the last step.

    Raises:
        ValueError: If a group is empty or negative.
    """

    centers: Tensor
    groups: Tensor
    group_sizes: Tensor
    pending_sum: Tensor
    pending_count: Tensor

    def __init__(self, groups: Tensor, latent_dim: int) -> None:
        super().__init__()
        groups = torch.as_tensor(groups, dtype=torch.int64).clone()
        if groups.ndim != 1 or not len(groups) or int(groups.min()) < 0:
            raise ValueError("groups must be one non-negative number a class")
        sizes = torch.bincount(groups)
        if int(sizes.min()) == 0:
            raise ValueError("groups must be numbered 0 .. K - 1 without an empty one")
        class_count = len(groups)
        self.register_buffer("groups", groups)
        self.register_buffer("group_sizes", sizes.float())
        self.register_buffer("centers", torch.zeros(class_count, latent_dim))
        self.register_buffer("pending_sum", torch.zeros(class_count, latent_dim), persistent=False)
        self.register_buffer("pending_count", torch.zeros(class_count), persistent=False)

    @property
    def class_count(self) -> int:
        """Returns the number of classes C."""
        return self.centers.shape[0]

    @property
    def group_count(self) -> int:
        """Returns the number of groups K."""
        return self.group_sizes.shape[0]

    def group_means(self) -> Tensor:
        """Returns the means (K, H) of the class centres of every group."""
        sums = self.centers.new_zeros(self.group_count, self.centers.shape[1])
        return sums.index_add_(0, self.groups, self.centers) / self.group_sizes[:, None]

    @torch.no_grad()
    def accumulate(self, d: Tensor, y: Tensor) -> None:
        """Adds the discriminative parts d (B, H) of a micro-batch with labels y (B,)."""
        values = d.detach().to(self.pending_sum.dtype)
        self.pending_sum.index_add_(0, y, values)
        self.pending_count.index_add_(0, y, values.new_ones(len(y)))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves the centres of the classes in the stored batches, and clears the sums."""
        counts = self.pending_count[:, None]
        share = rate / (1 + counts)
        # c - rate * (n * c - sum) / (1 + n), in two passes over the centres.
        self.centers.mul_(1 - share * counts).addcmul_(self.pending_sum, share)
        self.pending_sum.zero_()
        self.pending_count.zero_()

    @torch.no_grad()
    def init_class_means(self, d: Tensor, y: Tensor) -> None:
        """Sets every centre to the mean of its class; classes not in y keep theirs.

        Args:
            d: (N, H) discriminative parts.
            y: (N,) labels.
        """
        values = d.detach().to(self.centers.dtype)
        counts = values.new_zeros(self.class_count).index_add_(0, y, values.new_ones(len(y)))
        sums = torch.zeros_like(self.centers).index_add_(0, y, values)
        means = sums / counts.clamp(min=1)[:, None]
        self.centers.copy_(torch.where(counts[:, None] > 0, means, self.centers))
