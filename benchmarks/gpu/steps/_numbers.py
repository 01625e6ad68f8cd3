"""How the numbers of two computations are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def flat(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.detach().double().cpu().flatten() for p in parameters])


def apart(found: Tensor, wanted: Tensor) -> float:
    found, wanted = (x.detach().double().cpu() for x in (found, wanted))
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def tensors(state: Any) -> list[Tensor]:
    """Floating-point tensors of a state, in order, on the CPU."""
    if isinstance(state, Tensor):
        return [state.detach().cpu()] if state.is_floating_point() and state.numel() > 1 else []
    if isinstance(state, dict):
        return [each for key in state for each in tensors(state[key])]
    if isinstance(state, list | tuple):
        return [each for value in state for each in tensors(value)]
    return []


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
