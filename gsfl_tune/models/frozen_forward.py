"""What runs a frozen module fast; each way is a file of its own.

`gsfl_tune.models.frozen` has our copy with fused convolutions, in PyTorch;
`gsfl_tune.models.openvino_forward` has OpenVINO's. `gsfl_tune.training.caches.engines` chooses.
"""

from __future__ import annotations

from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]

# Largest distance between the output and that of the original module, relative to the length of the
# latter, per image. Measured with trained weights: 5e-6 and 0.07. Pooled unit features are closer,
# and wrong results are much farther off.
TOLERANCE: dict[Precision, float] = {"fp32": 5e-5, "bf16": 0.15}


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
