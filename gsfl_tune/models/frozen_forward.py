"""What runs a frozen module fast; each way is a file of its own.

`gsfl_tune.models.frozen` has our copy with fused convolutions, in PyTorch;
`gsfl_tune.models.openvino_forward` has OpenVINO's, `gsfl_tune.models.onnxruntime_forward` that of
ONNX Runtime. `gsfl_tune.training.caches.engines` chooses.
"""

from __future__ import annotations

from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
# Of features: int8 is a quantised backbone, see `gsfl_tune.training.caches.int8`.
Arithmetic = Literal["fp32", "bf16", "int8"]

# Largest distance between the output and that of the original module, relative to the length of the
# latter, per image. Measured with trained weights: 5e-6 and 0.07. Pooled unit features are closer,
# and wrong results are much farther off.
TOLERANCE: dict[Precision, float] = {"fp32": 5e-5, "bf16": 0.15}
# The same for a backbone in int8, on training images. Measured with trained weights
# (EfficientNet-Lite0, 160 px, photographs of clothing): 0.27.
INT8_TOLERANCE = 0.5


class EngineRefused(Exception):
    """Signals that an engine cannot run a module, or gives other numbers; says why."""


@runtime_checkable
class FrozenForward(Protocol):
    """Computes what a frozen module does, within `TOLERANCE`; gradients do not flow through it."""

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the output of the original module for a batch, float32.

        Args:
            images: (B, ...), of any size that the module accepts.
        """

    def to(self, device: torch.device) -> Self:
        """Moves it to a device that it can run on."""

    def cpu(self) -> Self:
        """Moves it to the CPU."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` says."""


def refuse_far(found: Tensor, expected: Tensor, allowed: float) -> float:
    """Compares outputs (B, ...) of an engine with those of the original module.

    Args:
        found: Outputs of the engine.
        expected: Outputs of the module.
        allowed: Largest distance of an image, relative to the length of what was expected.

    Returns:
        The largest distance found.

    Raises:
        EngineRefused: If one is farther off, or the shape is another.
    """
    if found.shape != expected.shape:
        raise EngineRefused(f"its output is {tuple(found.shape)}, not {tuple(expected.shape)}")
    size = expected.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    distance = float(((found - expected).flatten(1).norm(dim=1) / size).max())
    # In this form a result that is not finite does not agree.
    if not distance <= allowed:
        raise EngineRefused(
            f"its numbers differ from PyTorch's by {distance:.1e} of their size, allowed "
            f"{allowed:.0e}"
        )
    return distance
