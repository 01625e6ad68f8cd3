"""Frozen modules by OpenVINO's CPU plugin (extra ``cpu``): a `FrozenForward`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.models.frozen_forward import TOLERANCE, EngineRefused, Precision, refuse_far
from gsfl_tune.models.openvino_model import openvino_model
from gsfl_tune.models.openvino_requests import Requests, is_installed


class OpenvinoForward(nn.Module):
    """Runs a frozen module with OpenVINO, one stream a core; made by `openvino_forward`.

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
        self._requests: dict[tuple[int, ...], Requests] = {}
        self._lock = Lock()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the output of the original module for a batch, float32.

        Args:
            images: (B, ...) on the CPU, of any size that the module accepts.

        Raises:
            EngineRefused: If OpenVINO cannot read the module for this size.
        """
        values = np.ascontiguousarray(images.detach().float().numpy())
        return torch.from_numpy(self._of(tuple(values.shape[1:]))(values))

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` says."""
        return super().train(False)

    def _of(self, shape: tuple[int, ...]) -> Requests:
        threads = torch.get_num_threads()
        key = (*shape, threads)
        with self._lock:
            if key not in self._requests:
                made = Requests(self._model(shape), self._precision, threads)
                # Those of another number of threads hold threads and memory.
                self._requests = {k: v for k, v in self._requests.items() if k[-1] == threads}
                self._requests[key] = made
            return self._requests[key]

    def _model(self, shape: tuple[int, ...]) -> Any:
        """Converts the module for inputs of a shape; what follows from the size is fixed then."""
        if shape not in self._models:
            self._models[shape] = openvino_model(self._module[0], torch.zeros((2, *shape)))
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
    refuse_far(found, expected, TOLERANCE[precision])
    return forward
