"""Dropout that is fast enough for a small head on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Works as `torch.nn.Dropout`, with masks from 16 random bits per element on the CPU.

    torch draws a CPU mask element by element from one generator, which takes as long as the matrix
    product beside it. Here four elements share a 64-bit draw, which takes a third of the time. The
    rate is rounded to a multiple of 1/65536, and the scale fits the rounded rate, so the expected
    value equals the input. Masks depend only on torch's global generator, as torch's do. In other
    cases (GPU, half precision, compiled code) torch's own code runs.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zeroes elements at the rate `p` in training; keeps shape and type of the input."""
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
