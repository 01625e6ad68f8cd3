"""Runtime for ONNX files, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.export.extras import require
from gsfl_tune.export.runtimes._base import Runtime


class OnnxRuntime(Runtime):
    """Runs an ONNX file on the CPU, or on a GPU if ONNX Runtime has one.

    Args:
        model: The file, or a graph that was not written to one.
        preprocessing: The preprocessing of a square.
        inside: Whether the file does that itself.
        threads: Threads of one operation; default: those of torch.
        gpu: Whether to use a GPU, if ONNX Runtime supports one.

    Raises:
        UserError: If ONNX Runtime is not installed.
        BundleError: If it cannot read the file.
    """

    def __init__(
        self,
        model: Path | bytes,
        preprocessing: Preprocessing,
        *,
        inside: bool,
        threads: int | None = None,
        gpu: bool = False,
    ) -> None:
        super().__init__(preprocessing, inside=inside)
        name = str(model) if isinstance(model, Path) else "a graph"
        require(name, "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        if gpu and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # ONNX Runtime has a class for every kind of failure
            raise BundleError(
                f"{name}: ONNX Runtime cannot read it ({first_line(error)})"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, images: Tensor) -> Tensor:
        """Returns the file's only output."""
        return torch.from_numpy(self._session.run(None, {self._input: images.numpy()})[0])
