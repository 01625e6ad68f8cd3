"""Frozen modules by OpenVINO's CPU plugin (extra ``cpu``): a `FrozenForward`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.models.frozen_forward import TOLERANCE, Precision

# Images of one request: what a layer of a few images writes stays in the second-level cache.
# Measured for Lite0, ResNet-50, ConvNeXt-T and ViT-S at 224 px, one stream a core.
REQUEST: dict[Precision, int] = {"fp32": 4, "bf16": 8}

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class EngineRefused(Exception):
    """Signals that OpenVINO cannot run a module, or gives other numbers; says why."""


def is_installed() -> bool:
    """Returns whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


class OpenvinoForward(nn.Module):
    """Runs a frozen module with OpenVINO, one stream a core; made by `openvino_forward`.

    A batch is divided into small requests, which the streams take one after the other. So no core
    waits for others after a layer. The last request is filled up, so that all have one shape.

    Args:
        module: The module, on the CPU in float32 and evaluation mode; it is kept for images of
            sizes that were not seen before, and not run.
        precision: Precision of the computation; the output is float32.
    """

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        super().__init__()
        # In a tuple, so that this is no submodule: its parameters are not this one's.
        self._module = (module,)
        self._precision = precision
        self._models: dict[tuple[int, ...], Any] = {}
        self._queues: dict[tuple[int, ...], Any] = {}
        # One batch at a time uses every stream.
        self._lock = Lock()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the output of the original module for a batch, float32.

        Args:
            images: (B, ...) on the CPU, of any size that the module accepts.

        Raises:
            EngineRefused: If OpenVINO cannot read the module for this size.
        """
        values = np.ascontiguousarray(images.detach().float().numpy())
        size = min(REQUEST[self._precision], max(1, len(values)))
        with self._lock:
            queue = self._queue(tuple(values.shape[1:]), size)
            return torch.from_numpy(_run(queue, values, size))

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` says."""
        return super().train(False)

    def _queue(self, shape: tuple[int, ...], size: int) -> Any:
        import openvino

        threads = torch.get_num_threads()
        key = (*shape, size, threads)
        if key not in self._queues:
            model = self._model(shape).clone()
            model.reshape([size, *shape])
            settings = {
                "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
                "NUM_STREAMS": str(threads),
                "INFERENCE_NUM_THREADS": threads,
                # Several processes of a node would be pinned to the same cores.
                "ENABLE_CPU_PINNING": False,
            }
            try:
                compiled = openvino.Core().compile_model(model, "CPU", settings)
                queue = openvino.AsyncInferQueue(compiled, threads)
            except Exception as error:  # it has its own classes, and RuntimeError
                raise EngineRefused(_reason(error)) from error
            # Those of another number of threads hold threads and memory.
            self._queues = {k: v for k, v in self._queues.items() if k[-1] == threads}
            self._queues[key] = queue
        return self._queues[key]

    def _model(self, shape: tuple[int, ...]) -> Any:
        """Converts the module for inputs of a shape; what follows from the size is fixed then."""
        import openvino

        if shape not in self._models:
            example = torch.zeros((2, *shape))
            try:
                with warnings.catch_warnings(), torch.no_grad():
                    warnings.simplefilter("ignore")
                    self._models[shape] = openvino.convert_model(
                        self._module[0], example_input=example, input=[-1, *shape]
                    )
            except Exception as error:  # the tracer and every operation have their own classes
                raise EngineRefused(_reason(error)) from error
        return self._models[shape]


def openvino_forward(
    module: nn.Module, input_shape: Sequence[int], *, precision: Precision = "fp32"
) -> OpenvinoForward:
    """Makes a frozen module that OpenVINO runs, and compares it with the original once.

    Args:
        module: For instance a `Backbone`; one batch (B, ...) in, one tensor (B, ...) out. Its later
            changes do not reach the result.
        input_shape: Shape of one input, without B.
        precision: ``bf16`` multiplies in bfloat16.

    Raises:
        EngineRefused: If OpenVINO is not installed, cannot read the module, or gives numbers that
            are farther off than `gsfl_tune.models.frozen.TOLERANCE`.
    """
    if not is_installed():
        raise EngineRefused("the package openvino is not installed (extra `cpu`)")
    plain = copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
    forward = OpenvinoForward(plain, precision).eval()
    example = torch.randn((2, *input_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        expected = plain(example)
        found = forward(example)
    if found.shape != expected.shape:
        raise EngineRefused(f"its output is {tuple(found.shape)}, not {tuple(expected.shape)}")
    size = expected.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    distance = ((found - expected).flatten(1).norm(dim=1) / size).max()
    # In this form a result that is not finite does not agree.
    if not distance <= TOLERANCE[precision]:
        raise EngineRefused(
            f"its numbers differ from PyTorch's by {float(distance):.1e} of their size, allowed "
            f"{TOLERANCE[precision]:.0e}"
        )
    return forward


def _run(queue: Any, values: np.ndarray, size: int) -> np.ndarray:
    """Runs a batch in requests of `size` images; returns the outputs in order."""
    count = len(values)
    found: dict[int, np.ndarray] = {}

    def keep(request: Any, start: int) -> None:
        found[start] = request.get_output_tensor(0).data[: count - start].copy()

    queue.set_callback(keep)
    for start in range(0, count, size):
        part = values[start : start + size]
        if len(part) < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        queue.start_async({0: part}, start)
    queue.wait_all()
    return np.concatenate([found[start] for start in range(0, count, size)])


def _reason(error: BaseException) -> str:
    """Returns the last line of a message: its first ones say where in the source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
