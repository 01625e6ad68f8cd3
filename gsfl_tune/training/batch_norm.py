"""Batch norms: over several processes that share a batch, and with statistics found anew.

torch has the first for GPUs only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# Batches from which statistics are found: enough for means and variances.
NORM_BATCHES = 20

if TYPE_CHECKING:
    _Base = _BatchNorm
else:
    _Base = object


def synchronise_batch_norms(module: nn.Module) -> int:
    """Makes batch norms in training mode use the batches of all processes.

    Frozen ones, which use their running statistics, do not change, nor do parameters, buffers and
    their names. Call it after torch.distributed has its process group.

    Returns:
        Number of batch norms changed.
    """
    found = norms_in_training(module)
    for one in found:
        if not isinstance(one, _Synchronised):
            one.__class__ = _synchronised(type(one))
    return len(found)


@contextmanager
def fresh_statistics(module: nn.Module) -> Iterator[bool]:
    """Lets batch norms in training mode find the mean of their statistics over all that passes.

    For weights that training did not pass anything through, such as averages of weights. Frozen
    norms keep theirs. Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3
    (PreciseBN).

    Yields:
        Whether there are such norms; without any nothing has to pass.
    """
    found = norms_in_training(module, tracking=True)
    with momenta_kept(found):
        for one in found:
            one.reset_running_stats()
            one.momentum = None  # torch's word for a mean of all
        yield bool(found)


def norms_in_training(module: nn.Module, *, tracking: bool = False) -> list[_BatchNorm]:
    """Lists the batch norms in training mode.

    Args:
        module: Has them.
        tracking: Whether only those that keep statistics.
    """
    found = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.training]
    return [one for one in found if one.track_running_stats or not tracking]


@contextmanager
def momenta_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Gives norms their momenta back after a block."""
    momenta = [one.momentum for one in norms]
    try:
        yield
    finally:
        for one, momentum in zip(norms, momenta, strict=True):
            one.momentum = momentum


_classes: dict[Any, Any] = {}


def _synchronised(base: Any) -> Any:
    if base not in _classes:
        _classes[base] = type(f"Synchronised{base.__name__}", (_Synchronised, base), {})
    return _classes[base]


class _Synchronised(_Base):
    """Overrides `forward` of a batch norm class."""

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Normalises by mean and variance over all processes' batches."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        self._track(mean, variance, count)
        # A norm of timm may include its activation.
        for name in ("drop", "act"):
            step = getattr(self, name, None)
            if step is not None:
                y = step(y)
        return cast(Tensor, y)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        factor: Any = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1 / self.num_batches_tracked.float()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)


class _Normalise(torch.autograd.Function):
    """Computes (x - mean) / deviation * weight + bias, with statistics over all processes.

    Gradients of x include the path through the statistics. Gradients of weight and bias are this
    process' part and must be summed over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), _all_but_channels(x), correction=0)
        channels = len(mean)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / channels])])
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, own)
        means, variances, counts = torch.stack(gathered).split([channels, channels, 1], dim=1)
        count = counts.sum()
        share = counts / count
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.ndim - 2)]
        dims = _all_but_channels(x)
        given = gradients[0].float()
        normal = (x.float() - mean.view(shape)) * inverse.view(shape)
        own = torch.cat([given.sum(dims), (given * normal).sum(dims)])
        everywhere = own.clone()
        dist.all_reduce(everywhere)
        channels = len(mean)
        shift, slope = (everywhere / count).split(channels)
        scale = inverse if weight is None else inverse * weight
        back = (given - shift.view(shape) - normal * slope.view(shape)) * scale.view(shape)
        by_bias, by_weight = own.split(channels)
        needed = ctx.needs_input_grad
        return (
            back.to(x.dtype) if needed[0] else None,
            by_weight if needed[1] else None,
            by_bias if needed[2] else None,
            None,
        )


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]
