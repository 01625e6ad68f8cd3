"""Dropout that does not dominate a small head's step on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with masks from 16 random bits an element on the CPU.

    torch draws a CPU mask element by element from one generator, which takes as long as the
    matrix product beside it. Four elements share a 64-bit draw here, a third of the time; the rate
    is rounded to a multiple of 1/65536, and the scale fits the rounded rate, so the expected
    value is that of the input. Masks depend on torch's global generator alone, as torch's do.
    Elsewhere (GPU, half precision, compiled code) it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zeroes elements at the rate `p` in training; shape and type of the input."""
        if (
            not self.training
            or self.p == 0
            or input.device.type != "cpu"
            or input.dtype != torch.float32
            or torch.compiler.is_compiling()
        ):
            return super().forward(input)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: input.numel()].view(input.shape)
        keep = (bits >= dropped - _LEVELS // 2).to(input.dtype)
        return input * keep.mul_(_LEVELS / (_LEVELS - dropped))
