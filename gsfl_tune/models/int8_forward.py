"""Frozen modules in int8, quantised after training, by ONNX Runtime (extra ``export``)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from gsfl_tune.models.frozen_forward import INT8_TOLERANCE, EngineRefused, refuse_far
from gsfl_tune.models.onnx_quantise import quantise_onnx
from gsfl_tune.models.onnxruntime_forward import (
    OnnxruntimeForward,
    missing_packages,
    onnx_bytes,
    plain_copy,
)

# Images that are compared with PyTorch.
_COMPARED = 16


def int8_forward(
    module: nn.Module, batches: Callable[[], Iterable[Tensor]], graph: Path
) -> tuple[OnnxruntimeForward, float]:
    """Quantises a frozen module, and compares it with the original once.

    The same images give the same file, up to the rounding of the ranges that are seen.

    Args:
        module: For instance a `Backbone`; one batch (B, ...) in, one tensor (B, ...) out.
        batches: Gives inputs whose ranges of activations are taken, in batches of one size. The
            first ones are compared too.
        graph: The file to write.

    Returns:
        The module in int8, for inputs of this shape, and its largest distance from the original,
        relative to the length of an output.

    Raises:
        EngineRefused: If packages are not installed, the module cannot be written, quantised or
            run, or its numbers are farther off than
            `gsfl_tune.models.frozen_forward.INT8_TOLERANCE`.
    """
    if missing := missing_packages():
        raise EngineRefused(f"{' and '.join(missing)} not installed (extra `export`)")
    plain = plain_copy(module)
    shape = next(iter(batches())).shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "fp32.onnx"
        whole.write_bytes(onnx_bytes(plain, torch.zeros((2, *shape))))
        try:
            quantise_onnx(whole, graph, (batch.contiguous().numpy() for batch in batches()))
        except Exception as error:  # the quantiser and the runtime have many classes
            lines = str(error).strip().splitlines()
            reason = lines[0][:200] if lines else type(error).__name__
            raise EngineRefused(f"it cannot be quantised ({reason})") from error
    forward = OnnxruntimeForward(None, graph).eval()
    distance, compared = 0.0, 0
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for batch in batches():
            if compared >= _COMPARED:
                break
            compared += len(batch)
            distance = max(distance, refuse_far(forward(batch), plain(batch), INT8_TOLERANCE))
    return forward, distance
