"""OpenVINO's IR, a graph (``.xml``) and its weights (``.bin``), that CPUs run without torch."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.graph import INPUT, Deployed, require_dynamic
from gsfl_tune.models.frozen_forward import EngineRefused
from gsfl_tune.models.openvino_model import openvino_model

# Section of a model's runtime information.
METADATA = "gsfl_tune"


def read_module(module: Deployed) -> Any:
    """Reads a module with OpenVINO, with a dynamic batch.

    Args:
        module: The module; the result may share its memory.

    Returns:
        An ``openvino.Model``.

    Raises:
        EngineRefused: If OpenVINO cannot read it.
    """
    model = openvino_model(module, module.example())
    model.input(0).get_tensor().set_names({INPUT})
    model.output(0).get_tensor().set_names({module.output})
    return model


def convert_module(module: Deployed) -> Any:
    """Converts a module for a file, see `read_module`.

    Raises:
        UserError: If OpenVINO cannot read it, or fixes the batch.
    """
    try:
        model = read_module(module)
    except EngineRefused as error:
        raise UserError(
            f"--format openvino: this network cannot be exported ({error}); allowed: safetensors, "
            "onnx, torch-export"
        ) from error
    ends = [model.input(0).partial_shape[0], model.output(0).partial_shape[0]]
    require_dynamic("openvino", [end.get_length() if end.is_static else None for end in ends])
    return model


def write_model(
    model: Any, path: Path, *, half: bool, entries: Mapping[str, Any] | None = None
) -> Path:
    """Writes a model as an IR.

    Args:
        model: The ``openvino.Model``.
        path: The graph; the weights are beside it.
        half: Whether weights are stored in float16. The plugin of the CPU computes in float32.
        entries: Stored in the graph (``rt_info``), as JSON if they are not text.

    Returns:
        The file of the weights.
    """
    import openvino

    for key, value in (entries or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.set_rt_info(text, [METADATA, key])
    weights = path.with_suffix(".bin")
    # Whoever reads an earlier one has mapped its weights into memory: they must not change.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder) / path.name
        openvino.save_model(model, new, compress_to_fp16=half)
        os.replace(new.with_suffix(".bin"), weights)
        os.replace(new, path)
    return weights


def plain_run(path: Path) -> Callable[[Tensor], Tensor]:
    """Returns a function that runs an IR as other programs do, with the batch as it comes."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.numpy())[0])

    return run
