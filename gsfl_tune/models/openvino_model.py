"""PyTorch modules as OpenVINO reads them (extra ``cpu``)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.models.frozen_forward import EngineRefused
from gsfl_tune.models.openvino_requests import reason


def openvino_model(module: nn.Module, example: Tensor) -> Any:
    """Reads a module with OpenVINO, with a dynamic batch.

    `openvino.convert_model` does the same, but traces the module twice, and reports the conversion
    to its makers over the network.

    Args:
        module: A module in evaluation mode, without gradients; one batch (B, ...) in, one tensor
            (B, ...) out. The result may share its memory.
        example: Inputs of two images. What follows from their size is fixed then.

    Returns:
        An ``openvino.Model``.

    Raises:
        EngineRefused: If OpenVINO cannot read the module.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            decoder = TorchScriptPythonDecoder(
                module, example_input=example, trace_kwargs={"check_trace": False}
            )
            frontend = FrontEndManager().load_by_framework("pytorch")
            graph = frontend.load(decoder)
            (place,) = graph.get_inputs()
            graph.set_partial_shape(place, openvino.PartialShape([-1, *example.shape[1:]]))
            graph.set_element_type(place, openvino.Type(example.numpy().dtype))
            return frontend.convert(graph)
    except Exception as error:  # the tracer and every operation have their own classes
        raise EngineRefused(reason(error)) from error
