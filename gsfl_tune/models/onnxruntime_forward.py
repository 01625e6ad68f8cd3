"""Frozen modules by ONNX Runtime on CPUs (extra ``export``): a `FrozenForward`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.models.frozen_forward import TOLERANCE, EngineRefused, refuse_far
from gsfl_tune.models.onnx_graph import batch_sizes, onnx_program

# What a graph is written with, and what runs it.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

# Images of one run: what a layer of few images writes stays in the caches of the CPU.
_RUN = 8


def missing_packages() -> list[str]:
    """Returns which of `PACKAGES` are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def open_session(model: bytes | Path, threads: int) -> Any:
    """Opens an ONNX graph on the CPU.

    Args:
        model: The graph with its weights, or its file.
        threads: Threads of one operation.

    Raises:
        EngineRefused: If ONNX Runtime cannot read it.
    """
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        given = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class for every kind of failure
        lines = str(error).strip().splitlines()
        raise EngineRefused(lines[0][:200] if lines else type(error).__name__) from error


class OnnxruntimeForward(nn.Module):
    """Runs a frozen module with ONNX Runtime; made by `onnxruntime_forward`.

    Args:
        module: The module, on the CPU in float32 and evaluation mode; it is kept for images of
            sizes that were not seen before, and not run. None: there is only `graph`.
        graph: File of a graph for inputs of one shape, for instance a quantised one.
    """

    def __init__(self, module: nn.Module | None, graph: Path | None = None) -> None:
        super().__init__()
        # In a tuple, so that this is no submodule: its parameters are not this one's.
        self._module = (module,)
        self._graph = graph
        self._graphs: dict[tuple[int, ...], bytes] = {}
        self._sessions: dict[tuple[int, ...], Any] = {}
        self._lock = Lock()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the output of the original module for a batch, float32.

        Args:
            images: (B, ...) on the CPU, of any size that the module accepts.

        Raises:
            EngineRefused: If ONNX Runtime cannot run the module for this size.
        """
        values = np.ascontiguousarray(images.detach().float().numpy())
        session = self._of(tuple(values.shape[1:]))
        [name] = [each.name for each in session.get_inputs()]
        try:
            found = [
                session.run(None, {name: values[start : start + _RUN]})[0]
                for start in range(0, max(1, len(values)), _RUN)
            ]
        except Exception as error:  # it has a class for every kind of failure
            raise EngineRefused(str(error).strip().splitlines()[0][:200]) from error
        return torch.from_numpy(np.concatenate(found))

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` says."""
        return super().train(False)

    def _of(self, shape: tuple[int, ...]) -> Any:
        threads = torch.get_num_threads()
        key = (*shape, threads)
        with self._lock:
            if key not in self._sessions:
                made = open_session(self._graph or self._written(shape), threads)
                # Those of another number of threads hold threads and memory.
                self._sessions = {k: v for k, v in self._sessions.items() if k[-1] == threads}
                self._sessions[key] = made
            return self._sessions[key]

    def _written(self, shape: tuple[int, ...]) -> bytes:
        """Writes the module for inputs of a shape; what follows from the size is fixed then."""
        if shape not in self._graphs:
            [module] = self._module
            assert module is not None
            self._graphs[shape] = onnx_bytes(module, torch.zeros((2, *shape)))
        return self._graphs[shape]


def onnx_bytes(module: nn.Module, example: Tensor) -> bytes:
    """Returns a module as an ONNX graph with its weights inside.

    Args:
        module: The module, on the CPU in float32 and evaluation mode.
        example: Inputs of two images.

    Raises:
        EngineRefused: If it cannot be written, or fixes the batch.
    """
    program = onnx_program(module, example, input="images", output="features")
    fixed = [size for size in batch_sizes(program) if isinstance(size, int)]
    if fixed:
        raise EngineRefused(f"its graph takes only batches of {fixed[0]} images")
    try:
        written: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # more than 2 GB, which the format does not hold
        raise EngineRefused(f"its graph cannot be written ({type(error).__name__})") from error
    return written


def onnxruntime_forward(module: nn.Module, input_shape: Sequence[int]) -> OnnxruntimeForward:
    """Makes a frozen module that ONNX Runtime runs, and compares it with the original once.

    Args:
        module: For instance a `Backbone`; one batch (B, ...) in, one tensor (B, ...) out. Its later
            changes do not reach the result.
        input_shape: Shape of one input, without B.

    Raises:
        EngineRefused: If packages are not installed, the module cannot be written as ONNX or run,
            or its numbers are farther off than `gsfl_tune.models.frozen_forward.TOLERANCE`.
    """
    if missing := missing_packages():
        raise EngineRefused(f"{' and '.join(missing)} not installed (extra `export`)")
    plain = plain_copy(module)
    forward = OnnxruntimeForward(plain).eval()
    example = torch.randn((2, *input_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        refuse_far(forward(example), plain(example), TOLERANCE["fp32"])
    return forward


def plain_copy(module: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in float32 and evaluation mode, without gradients."""
    return copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
