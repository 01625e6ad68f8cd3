"""Batches that several processes share: the losses of a pretraining see them whole.

Every process passes its own images through the backbone. The representations of all processes are
joined, and heads and losses, which are small, are computed of the whole batch in each of them. So
keys, negatives, centres, covariances and batch norms of heads are those of one process, whatever
the method is. A process adds its part of the loss, and the parts add up to the loss of one process;
so do the gradients, of representations and of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from gsfl_tune.data.batch_share import BatchShare


class Joined(Protocol):
    """Describes the processes of a group, see `gsfl_tune.training.process_group.Ranks`."""

    share: BatchShare

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces every tensor by its sum over all processes."""


class JointBatch:
    """Makes whole batches of the processes' parts; of a single process they are as they come.

    Args:
        ranks: The processes; None for one alone.
        images: Images B of a whole batch.
        device: Where random numbers are drawn.
    """

    def __init__(
        self, ranks: Joined | None = None, images: int = 0, device: torch.device | None = None
    ) -> None:
        self._ranks = ranks
        self._images = images
        self._device = device or torch.device("cpu")
        self._draws: list[Tensor] = []

    @property
    def ranks(self) -> Joined | None:
        """Returns the processes; None for one alone."""
        return self._ranks

    def rows(self, own: Tensor) -> Tensor:
        """Joins the rows (b, ...) of every process to (B, ...), in the order of one process."""
        if self._ranks is None:
            return own
        joined: Tensor = _Rows.apply(own, self._ranks, self._images)
        return joined

    def own(self, rows: Tensor) -> Tensor:
        """Returns the rows (b, ...) of this process, of (B, ...)."""
        return rows if self._ranks is None else rows[self._ranks.share.of(self._images)]

    def parts(self, rows: Tensor, groups: int) -> list[slice]:
        """Divides rows (b, ...) of this process as a whole batch is divided into groups.

        Args:
            rows: The rows of this process.
            groups: Groups of the whole batch, a multiple of the number of processes.
        """
        if self._ranks is None:
            return [BatchShare(each, groups).of(len(rows)) for each in range(groups)]
        share = self._ranks.share
        own, first = groups // share.size, share.of(self._images).start
        whole = [
            BatchShare(share.rank * own + each, groups).of(self._images) for each in range(own)
        ]
        return [slice(each.start - first, each.stop - first) for each in whole]

    def count(self, rows: Tensor) -> int:
        """Returns the images of the whole batch, of which rows (b, ...) are this process' part."""
        return len(rows) if self._ranks is None else self._images

    def part(self, value: Tensor) -> Tensor:
        """Returns this process' part of what all of them have computed of the whole batch."""
        return value if self._ranks is None else value / self._ranks.share.size

    def part_of_mean(self, mean: Tensor) -> Tensor:
        """Returns this process' part of a mean over the whole batch.

        Args:
            mean: The mean over its own images.
        """
        if self._ranks is None:
            return mean
        share = self._ranks.share.of(self._images)
        return mean * ((share.stop - share.start) / self._images)

    def summed(self, part: Tensor) -> Tensor:
        """Returns the sum of the processes' parts, without gradient."""
        if self._ranks is None:
            return part
        total = part.detach().clone()
        self._ranks.add_up([total])
        return total

    def take_means(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their means over the processes, as data beside any graph."""
        if self._ranks is not None and tensors:
            self._ranks.add_up([each.data for each in tensors])
            for each in tensors:
                each.data.div_(self._ranks.share.size)

    def begin(self) -> None:
        """Remembers the state of the random numbers, which every process has, for `drawing`."""
        if self._ranks is not None:
            self._draws = self._states()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draws the same random numbers in every process: those of one process alone."""
        if self._ranks is None:
            yield
            return
        own = self._states()
        self._take(self._draws)
        try:
            yield
        finally:
            self._draws = self._states()
            self._take(own)

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _take(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)


class _Rows(torch.autograd.Function):
    """Joins rows; the gradient of a row is the sum of those that all processes have of it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Joined, count: int) -> Tensor:
        ctx.ranks, ctx.place = ranks, ranks.share.of(count)
        joined = own.new_zeros((count, *own.shape[1:]))
        joined[ctx.place] = own
        ranks.add_up([joined])
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        ctx.ranks.add_up([total])
        return total[ctx.place], None, None
