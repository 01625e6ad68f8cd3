"""``torch.export`` files: programs that torch runs and compiles without the original code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.export.graph import Deployed, require_dynamic

METADATA = "metadata.json"


def capture(module: nn.Module, example: Tensor) -> ExportedProgram:
    """Captures the program of a module, with a dynamic batch.

    Args:
        module: The module to export.
        example: Inputs of two images.

    Raises:
        UserError: If torch cannot capture it, or fixes the batch.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module,
                (example,),
                dynamic_shapes=({0: Dim("batch", min=1, max=2**16)},),
            )
    except Exception as error:  # torch raises many kinds
        raise UserError(
            f"--format torch-export: this network cannot be exported ({first_line(error)}); "
            "allowed: safetensors"
        ) from error
    signature = program.graph_signature
    ends = {*signature.user_inputs, *signature.user_outputs}
    values = [node.meta["val"] for node in program.graph.nodes if node.name in ends]
    require_dynamic("torch-export", [value.shape[0] for value in values])
    return program


def quantise(module: Deployed, batches: Iterable[Tensor]) -> ExportedProgram:
    """Quantises after training, statically, by torchao (PT2E), for inductor on x86.

    Args:
        module: The module in fp32.
        batches: Inputs of training images, from which the ranges of activations are taken.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph: Any = capture(module, module.example()).module()
        prepared = prepare_pt2e(graph, quantizer)
        for batch in batches:
            prepared(batch)
        converted = convert_pt2e(prepared)
    drop_unused(converted)
    return capture(converted, module.example())


def drop_unused(graph: Any) -> None:
    """Removes tensors that a graph does not read, such as float originals of int8 weights."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in used:
            owner, _, key = name.rpartition(".")
            delattr(graph.get_submodule(owner), key)


def write_program(program: ExportedProgram, path: Path, entries: Mapping[str, Any]) -> None:
    """Writes a ``.pt2`` file.

    Args:
        program: The program; it forgets which lines of code made it.
        path: The file.
        entries: Stored inside as ``metadata.json``, see `torch.export.load` (``extra_files``).
    """
    # The lines of code that made each node name folders of this machine.
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    content = json.dumps(dict(entries), ensure_ascii=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={METADATA: content})
