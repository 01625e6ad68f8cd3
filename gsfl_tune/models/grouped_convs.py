"""Grouped convolutions in full precision inside of a bf16 network.

oneDNN has fast bf16 kernels for dense convolutions, but not for the gradients of depthwise ones
with 5x5 filters: these take 3 to 8 times as long as in float32 (torch 2.14 on a CPU with AMX).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _FullPrecision:
    """Disables CPU autocast for one convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # type: ignore[misc]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())  # type: ignore[misc]


def keep_grouped_convs_full(module: nn.Module) -> None:
    """Makes grouped convolutions of a module ignore CPU autocast; weights are not moved.

    Args:
        module: Changed in place; `restore_grouped_convs` undoes it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and not _is_full(layer):
            layer.__class__ = _full(type(layer))


def restore_grouped_convs(module: nn.Module) -> None:
    """Makes them regular convolutions again."""
    for layer in module.modules():
        if _is_full(layer):
            layer.__class__ = type(layer).__mro__[2]


_kinds: dict[Any, Any] = {}


def _full(kind: Any) -> Any:
    if kind not in _kinds:
        _kinds[kind] = type(f"Full{kind.__name__}", (_FullPrecision, kind), {})
    return _kinds[kind]


def _is_full(layer: nn.Module) -> bool:
    return isinstance(layer, _FullPrecision)
