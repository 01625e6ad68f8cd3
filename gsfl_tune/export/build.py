"""Writer of model files of every format and precision, and the comparison with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsfl_tune.bundles import files
from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.reading import stored_network
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import exported_file, onnx_file, openvino_file
from gsfl_tune.export.graph import Deployed, require_any_batch
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.options import Options, Precision
from gsfl_tune.export.runtimes import (
    ExportedRuntime,
    OnnxRuntime,
    OpenvinoRuntime,
    Runtime,
    TorchRuntime,
)
from gsfl_tune.models import Ensemble, Network

PARITY = 1e-4
# Rounding of a map moves a region by some millionths of the side, and so all of its pixels.
PARITY_OF_REGIONS = 1e-3
_PARITY_IMAGES = 64


@dataclass(frozen=True)
class Parity:
    """Holds the differences between the outputs of a file and those of PyTorch.

    Attributes:
        images: Number of validation images compared.
        probabilities: Largest difference of a probability.
        logits: Largest difference of a logit, as a share of the largest logit if that is above 1;
            None if the file gives probabilities.
        limit: Largest difference allowed for fp32 files.
    """

    images: int
    probabilities: float
    logits: float | None
    limit: float = PARITY

    @property
    def holds(self) -> bool:
        """Returns whether both are within the limit."""
        return max(self.probabilities, self.logits or 0.0) <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Built:
    """Holds a model file that is not yet in its place.

    Attributes:
        path: The file.
        program: The program of a ``.pt2`` file, or the model of an OpenVINO IR.
        weights: The file of the weights, if they are apart.
    """

    path: Path
    program: Any = None
    weights: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Returns the file and that of its weights, if they are apart."""
        return [self.path] if self.weights is None else [self.path, self.weights]

    @property
    def bytes(self) -> int:
        """Returns the size on disk."""
        return sum(file.stat().st_size for file in self.files)


class Builder:
    """Makes model files of one format.

    Args:
        options: The options of the export.
        architecture: Architecture of the run's bundle.
        images: Images of the run.
        folder: Folder for the files.
        ensemble: Description of several networks for readers; None for one.
    """

    def __init__(
        self,
        options: Options,
        architecture: Architecture,
        images: RunImages,
        folder: Path,
        ensemble: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = options
        self.images = images
        self._architecture = architecture
        self._folder = folder
        self.ensemble = ensemble

    def build(
        self, network: Network | Ensemble, precision: Precision, name: str | None = None
    ) -> Built:
        """Writes the file of a network.

        Args:
            network: The network.
            precision: Precision of the file.
            name: Name of the file; default: that of the format.

        Raises:
            UserError: If the network cannot be exported with a dynamic batch size, or has numbers
                that fp16 does not hold.
        """
        path = self._folder / (name or files.MODELS[self.options.format])
        if self.options.format == "safetensors":
            state = network.inference_state()
            if precision == "fp16":
                state = {k: t.half() if t.is_floating_point() else t for k, t in state.items()}
                _refuse_infinite(state)
            path.write_bytes(files.tensor_bytes(dict(state)))
            return Built(path)
        inside = self.options.preprocess
        openvino = self.options.format == "openvino"
        half = precision == "fp16" and not openvino
        module = Deployed(network, self.images.preprocessing, inside=inside, half=half)
        if openvino:
            model = openvino_file.convert_module(module)
            weights = openvino_file.write_model(model, path, half=precision == "fp16")
            require_any_batch("openvino", openvino_file.plain_run(path), module)
            return Built(path, model, weights)
        batches = self.images.calibration(self.options.calibration, inside=inside)
        if self.options.format == "onnx":
            if precision != "int8":
                onnx_file.write_onnx(module, path)
            else:
                whole = self._folder / "fp32.onnx"
                onnx_file.write_onnx(module, whole)
                onnx_file.quantise_onnx(whole, path, (batch.numpy() for batch in batches))
            built = Built(path)
        else:
            if precision == "int8":
                program = exported_file.quantise(module, batches)
            else:
                program = exported_file.capture(module, module.example())
            exported_file.write_program(program, path, {})
            built = Built(path, program)
        require_any_batch(self.options.format, self.runtime(built, precision).run, module)
        return built

    def runtime(self, built: Built, precision: Precision) -> Runtime:
        """Returns the runtime of a file."""
        preprocessing, inside = self.images.preprocessing, self.options.preprocess
        if self.options.format == "onnx":
            return OnnxRuntime(built.path, preprocessing, inside=inside)
        if self.options.format == "openvino":
            return OpenvinoRuntime(built.path, preprocessing, inside=inside)
        if self.options.format == "torch-export":
            return ExportedRuntime(
                built.path, preprocessing, inside=inside, quantised=precision == "int8"
            )
        state = {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in files.read_tensors(built.path, None).items()
        }
        about = {"prune": self.options.prune, "ensemble": self.ensemble}
        return TorchRuntime(stored_network(self._architecture, state, about), preprocessing)

    def finish(self, built: Built, entries: Mapping[str, Any]) -> None:
        """Writes metadata for readers into the file, if the format supports it."""
        if self.options.format == "onnx":
            onnx_file.write_metadata(built.path, entries)
        elif self.options.format == "torch-export":
            exported_file.write_program(built.program, built.path, entries)
        elif self.options.format == "openvino":
            half = self.options.precision == "fp16"
            openvino_file.write_model(built.program, built.path, half=half, entries=entries)


def _refuse_infinite(state: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.isinf().any():
            raise UserError(
                f"--precision fp16: {name} has numbers above 65,504, the largest of fp16; allowed: "
                "fp32"
            )


def compare(runtime: Runtime, network: Network | Ensemble, images: RunImages) -> Parity:
    """Compares a file with PyTorch on validation images.

    Args:
        runtime: Runs the file.
        network: The network it was made from.
        images: Images of the run.
    """
    squares = images.examples(_PARITY_IMAGES)
    found, wanted = (
        torch.cat([each.logits(squares[i : i + 8]) for i in range(0, len(squares), 8)]).double()
        for each in (runtime, TorchRuntime(network, images.preprocessing))
    )
    logits = None
    if not runtime.inside:
        scale = max(1.0, float(wanted.abs().max()))
        logits = float((found - wanted).abs().max()) / scale
    difference = (found.softmax(dim=1) - wanted.softmax(dim=1)).abs().max()
    networks = network.networks if isinstance(network, Ensemble) else [network]
    regions = any(each.recurrent is not None for each in networks)
    limit = PARITY_OF_REGIONS if regions else PARITY
    return Parity(len(squares), float(np.float64(difference)), logits, limit)


def require_parity(parity: Parity, options: Options) -> None:
    """Refuses a file with other outputs than PyTorch.

    Raises:
        UserError: With the difference that was found.
    """
    if not parity.holds:
        largest = max(parity.probabilities, parity.logits or 0.0)
        raise UserError(
            f"--format {options.format}: outputs differ by {largest:.1e} from PyTorch's on "
            f"{parity.images} validation images, allowed {parity.limit:.0e}; nothing was written"
        )


def require_numbers(parity: Parity, options: Options) -> None:
    """Refuses a file whose answers are not finite: a network may not fit into fp16.

    Raises:
        UserError: If a difference is no number.
    """
    if not np.isfinite([parity.probabilities, parity.logits or 0.0]).all():
        raise UserError(
            f"--precision {options.precision}: the network does not fit, its answers are not "
            "numbers; allowed: fp32; nothing was written"
        )
