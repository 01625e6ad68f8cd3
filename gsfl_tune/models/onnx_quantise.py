"""Quantisation of ONNX files after training, by ONNX Runtime (extra ``export``)."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

# Operations between convolutions that are worth int8: else values go to float and back.
_BETWEEN = {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Relu"}
_WEIGHTED = {"Conv", "Gemm", "MatMul"}


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
            _Reader(model.graph.input[0].name, batches),
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

    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self._name = name
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}
