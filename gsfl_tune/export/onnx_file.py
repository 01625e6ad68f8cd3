"""ONNX files, which ONNX Runtime and many other tools run without Python and torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.graph import INPUT, Deployed, require_dynamic
from gsfl_tune.models.frozen_forward import EngineRefused
from gsfl_tune.models.onnx_graph import batch_sizes, onnx_program
from gsfl_tune.models.onnx_quantise import quantise_onnx

__all__ = ["quantise_onnx", "write_metadata", "write_onnx"]


def write_onnx(module: Deployed, path: Path) -> None:
    """Writes a module through torch's exporter, with a dynamic batch.

    Args:
        module: The module to export.
        path: The file, with its weights inside.

    Raises:
        UserError: If the exporter does not support one of its operations, or fixes the batch.
    """
    try:
        program = onnx_program(module, module.example(), input=INPUT, output=module.output)
    except EngineRefused as error:
        raise UserError(
            f"--format onnx: this network cannot be exported ({error}); allowed: "
            "safetensors, torch-export, openvino"
        ) from error
    # The exporter does not report when code fixes the batch size in the file.
    require_dynamic("onnx", batch_sizes(program))
    # The lines of code that made each node name folders of this machine.
    graphs = (program.model.graph, *program.model.functions.values())
    for node in (node for graph in graphs for node in graph.all_nodes()):
        for key in [key for key in node.metadata_props if key.startswith("pkg.torch.")]:
            del node.metadata_props[key]
    program.save(str(path), external_data=False)


def write_metadata(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes entries to the file's metadata, as JSON if they are not text."""
    import onnx

    model = onnx.load(path)
    known = {entry.key: entry for entry in model.metadata_props}
    for key, value in entries.items():
        entry = known.get(key) or model.metadata_props.add()
        entry.key = key
        entry.value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    onnx.save(model, path)
