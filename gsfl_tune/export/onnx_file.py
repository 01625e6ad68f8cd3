"""ONNX files, which ONNX Runtime and many other tools run without Python and torch."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.export.graph import INPUT, Deployed, require_dynamic

# Operations between convolutions that are worth int8: else values go to float and back.
_BETWEEN = {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Relu"}
_WEIGHTED = {"Conv", "Gemm", "MatMul"}


def write_onnx(module: Deployed, path: Path) -> None:
    """Writes a module through torch's exporter, with a dynamic batch.

    Args:
        module: The module to export.
        path: The file, with its weights inside.

    Raises:
        UserError: If the exporter does not support one of its operations, or fixes the batch.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                module,
                (module.example(),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[module.output],
                dynamic_shapes={INPUT: {0: Dim("batch", min=1, max=2**16)}},
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises many kinds
            raise UserError(
                f"--format onnx: this network cannot be exported ({_reason(error)}); allowed: "
                "safetensors, torch-export, openvino"
            ) from error
    # The exporter does not report when code fixes the batch size in the file.
    graph = program.model.graph
    require_dynamic("onnx", [graph.inputs[0].shape[0], graph.outputs[0].shape[0]])
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


def quantise_onnx(source: Path, target: Path, batches: Iterable[np.ndarray]) -> None:
    """Quantises statically after training by ONNX Runtime: QDQ, int8 weights per channel.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.

    Args:
        source: An fp32 file.
        target: The int8 file to write.
        batches: Inputs of training images, from which the ranges of activations are taken.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        for number, node in enumerate(model.graph.node):
            node.name = f"{number}_{node.op_type}"
        onnx.save(model, prepared)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=quantised_nodes(model),
        )


def quantised_nodes(model: Any) -> list[str]:
    """Returns the names of the nodes that compute in int8.

    These are all nodes with weights, and those between the first and the last convolution.
    Preprocessing, pooling, normalisation and softmax stay in float: they are small, and bilinear
    pooling squares and takes roots near zero.
    """
    nodes = list(model.graph.node)
    constant = {tensor.name for tensor in model.graph.initializer}
    convolutions = [n for n, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return []
    # Nodes are in topological order.
    behind: set[str] = set()
    for node in nodes[convolutions[0] :]:
        if node is nodes[convolutions[0]] or behind & set(node.input):
            behind.update(node.output)
    last = nodes[convolutions[-1]]
    before = set(last.input)
    for node in reversed(nodes[: convolutions[-1]]):
        if before & set(node.output):
            before.update(node.input)
    names = []
    for number, node in enumerate(nodes):
        if node.op_type in _WEIGHTED:
            # A product of two activations has no weights, and the resizing in front has none.
            chosen = len(node.input) > 1 and node.input[1] in constant and number >= convolutions[0]
        elif node.op_type in _BETWEEN:
            inside = bool(set(node.output) & before) and bool(set(node.input) & behind)
            chosen = inside or (
                node.op_type in ("Clip", "Relu") and bool(set(node.input) & set(last.output))
            )
        else:
            chosen = False
        if chosen:
            names.append(node.name)
    return names


class _Reader:
    """Provides calibration inputs to ONNX Runtime."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _reason(error: BaseException) -> str:
    """Returns the first line of the root cause; the exporter's own error only names its step."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
