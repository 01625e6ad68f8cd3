"""PyTorch modules as ONNX graphs (extra ``export``)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from gsfl_tune.models.frozen_forward import EngineRefused


def onnx_program(module: nn.Module, example: Tensor, *, input: str, output: str) -> Any:
    """Writes a module as a graph through torch's exporter, with a dynamic batch.

    Args:
        module: A module in evaluation mode; one batch (B, ...) in, one tensor (B, ...) out.
        example: Inputs of two images. What follows from their size is fixed then.
        input: Name of the graph's input.
        output: Name of its output.

    Returns:
        A ``torch.onnx.ONNXProgram``. Code of the module may still have fixed the batch, which the
        exporter does not report, see `batch_sizes`.

    Raises:
        EngineRefused: If the exporter does not support one of its operations.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[input],
                output_names=[output],
                dynamic_shapes=({0: Dim("batch", min=1, max=2**16)},),
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises many kinds
            raise EngineRefused(_reason(error)) from error
    return program


def batch_sizes(program: Any) -> list[object]:
    """Returns the first dimensions of a program's input and output: numbers where they are fixed.

    Args:
        program: What `onnx_program` gave.
    """
    graph = program.model.graph
    return [graph.inputs[0].shape[0], graph.outputs[0].shape[0]]


def _reason(error: BaseException) -> str:
    """Returns the first line of the root cause; the exporter's own error only names its step."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
