"""Runtime for OpenVINO's models, on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export.extras import require
from gsfl_tune.export.runtimes._base import Runtime
from gsfl_tune.models.frozen_forward import Precision
from gsfl_tune.models.openvino_requests import Requests, reason


class OpenvinoRuntime(Runtime):
    """Runs an OpenVINO IR, or a model that was not written to a file.

    Threads may call it side by side; they share its streams, one for each of its threads.

    Args:
        model: The ``.xml`` file, with its weights beside it, or an ``openvino.Model``.
        preprocessing: The preprocessing of a square.
        inside: Whether the model does that itself.
        threads: Threads of all streams together; default: those of torch.
        precision: Precision of the computation.

    Raises:
        UserError: If OpenVINO is not installed.
        BundleError: If it cannot read the file.
    """

    def __init__(
        self,
        model: Path | Any,
        preprocessing: Preprocessing,
        *,
        inside: bool,
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(preprocessing, inside=inside)
        self._source = model if isinstance(model, Path) else None
        if isinstance(model, Path):
            require(str(model), "openvino")
            import openvino

            try:
                model = openvino.Core().read_model(model)
            except Exception as error:  # it has its own classes, and RuntimeError
                raise BundleError(f"{model}: OpenVINO cannot read it ({reason(error)})") from error
        self._requests = Requests(model, precision, threads or torch.get_num_threads())
        self.precision = precision

    def again(self, threads: int, precision: Precision) -> OpenvinoRuntime:
        """Returns one of the same file with other settings."""
        return OpenvinoRuntime(
            self._source,
            self.preprocessing,
            inside=self.inside,
            threads=threads,
            precision=precision,
        )

    def run(self, images: Tensor) -> Tensor:
        """Returns the model's only output."""
        return torch.from_numpy(self._requests(images.contiguous().numpy()))
