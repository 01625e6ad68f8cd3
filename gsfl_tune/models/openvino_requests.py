"""Batches through a model of OpenVINO's CPU plugin (extra ``cpu``), in small requests."""

from __future__ import annotations

from importlib.util import find_spec
from threading import Lock, local
from typing import Any

import numpy as np

from gsfl_tune.models.frozen_forward import EngineRefused, Precision

# Images of one request: what a layer of a few images writes stays in the second-level cache.
# Measured for Lite0, ResNet-50, ConvNeXt-T and ViT-S at 224 px, one stream a core.
REQUEST: dict[Precision, int] = {"fp32": 4, "bf16": 8}

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


def is_installed() -> bool:
    """Returns whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


class Requests:
    """Runs a model with OpenVINO, one stream a thread.

    A batch is divided into small requests, which the streams take one after the other. So no core
    waits for others after a layer. The last request is filled up, so that all have one shape. Few
    images are requests of one image each. Callers in several threads share the streams.

    Args:
        model: An ``openvino.Model`` with one input (B, ...) and one output (B, ...). Only B is
            dynamic. It is not changed, and not kept once there is nothing left to compile.
        precision: Precision of the computation.
        threads: Threads of all streams together.
    """

    def __init__(self, model: Any, precision: Precision, threads: int) -> None:
        self._model = model
        shape = list(model.input(0).partial_shape)[1:]
        self._shape = [dimension.get_length() for dimension in shape]
        self._precision = precision
        self._threads = threads
        self._compiled: dict[int, Any] = {}
        self._lock = Lock()
        self._own = local()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the outputs (B, ...) of inputs (B, ...), in order.

        Raises:
            EngineRefused: If OpenVINO cannot compile the model.
        """
        count = len(values)
        size = REQUEST[self._precision] if count >= REQUEST[self._precision] else 1
        queue = self._queue(size)
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

    def _queue(self, size: int) -> Any:
        """Returns the calling thread's queue: a queue waits for all that was put into it."""
        import openvino

        queues = self._own.__dict__.setdefault("queues", {})
        if size not in queues:
            compiled = self._compile(size)
            # One more than streams: it is ready when a stream is.
            queues[size] = openvino.AsyncInferQueue(compiled, self._threads + 1)
        return queues[size]

    def _compile(self, size: int) -> Any:
        import openvino

        with self._lock:
            if size in self._compiled:
                return self._compiled[size]
            settings = {
                "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
                "NUM_STREAMS": str(self._threads),
                "INFERENCE_NUM_THREADS": self._threads,
                # Several processes of a node would be pinned to the same cores.
                "ENABLE_CPU_PINNING": False,
            }
            try:
                model = self._model.clone()
                model.reshape([size, *self._shape])
                self._compiled[size] = openvino.Core().compile_model(model, "CPU", settings)
            except Exception as error:  # it has its own classes, and RuntimeError
                raise EngineRefused(reason(error)) from error
            if len(self._compiled) == 2:
                self._model = None
            return self._compiled[size]


def reason(error: BaseException) -> str:
    """Returns the last line of a message: its first ones say where in the source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
