"""Training with int8 rounding in every convolution and linear layer.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, with torch's own fake quantisation. It works on
modules, not on a captured graph (as torchao does): the trained weights belong to the same network
and go through the quantiser of the export format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_MOMENTUM = 0.05
_TINY = 1e-8


@contextmanager
def fake_quantised(network: nn.Module) -> Iterator[None]:
    """Rounds weights and inputs of every convolution and linear layer as int8 will.

    Weights: symmetric, one scale per output channel. Folding a batch norm multiplies a channel and
    its scale by the same factor, so this equals rounding the folded weights. Inputs: unsigned, one
    scale, from a moving average of their range. Gradients pass through the rounding.

    Args:
        network: Changed in place; restored on exit with the trained weights.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = []
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _Weights())
        handles.append(layer.register_forward_pre_hook(_Inputs()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class _Weights(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        scale = (largest / 127).clamp(min=_TINY).float()
        zero = torch.zeros(len(scale), dtype=torch.int32, device=scale.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class _Inputs:
    """Hooks a layer's inputs and tracks their range."""

    def __init__(self) -> None:
        self._range: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        low, high = x.detach().aminmax()
        found = torch.stack([low.clamp(max=0), high.clamp(min=0)]).float()
        if self._range is None:
            self._range = found
        elif module.training:
            self._range = self._range.lerp(found, _MOMENTUM)
        low, high = self._range
        scale = ((high - low) / 255).clamp(min=_TINY)
        zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
        return (torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255), *args[1:])
