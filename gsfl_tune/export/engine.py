"""Who answers on a CPU, and in which precision.

PyTorch, OpenVINO (extra ``cpu``), or ONNX Runtime (extra ``export``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsfl_tune.bundles.files import BundleError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.bundle import load_bundle
from gsfl_tune.export.extras import require
from gsfl_tune.export.graph import Deployed
from gsfl_tune.export.openvino_file import read_module
from gsfl_tune.export.predictor import Bundle
from gsfl_tune.export.runtimes import OnnxRuntime, OpenvinoRuntime, Runtime, TorchRuntime
from gsfl_tune.models.frozen import has_bf16_units
from gsfl_tune.models.frozen_forward import EngineRefused, Precision
from gsfl_tune.models.onnxruntime_forward import PACKAGES, onnx_bytes
from gsfl_tune.training.caches.engines import usable

EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# What computes on CPUs alone, also where there is a GPU.
_OF_CPUS = ("openvino", "onnxruntime")

# Largest difference of a probability from PyTorch's in fp32. That of bf16 depends on the network;
# the limit tells rounding from wrong numbers.
LIMITS: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.1}
_EXAMPLES = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """Holds what a user asked for; made by `Engine.of`.

    Attributes:
        name: ``auto`` takes OpenVINO on a CPU where it is installed and worth its start.
        precision: Precision of the computation on a CPU.
    """

    name: EngineName = "auto"
    precision: Precision = "fp32"

    @classmethod
    def of(cls, name: str, precision: str) -> Engine:
        """Checks the values of ``--engine`` and ``--precision`` on this machine.

        Raises:
            UserError: With one line per problem: an unknown value, an engine that is not installed,
                or bf16 on a CPU without it.
        """
        problems = []
        if name not in ENGINES:
            problems.append(f"--engine: found {name}, allowed {', '.join(ENGINES)}")
        if precision not in PRECISIONS:
            problems.append(f"--precision: found {precision}, allowed {', '.join(PRECISIONS)}")
        elif precision == "bf16" and not has_bf16_units():
            problems.append(
                "--precision: found bf16 on a CPU without bf16 (AMX or AVX512-BF16), allowed fp32"
            )
        elif precision == "bf16" and name == "onnxruntime":
            problems.append(
                "--precision: found bf16 with --engine onnxruntime, which computes in fp32, "
                "allowed fp32"
            )
        if problems:
            raise UserError("\n".join(problems))
        if name == "openvino":
            require("--engine openvino", "openvino")
        if name == "onnxruntime":
            require("--engine onnxruntime", *PACKAGES)
        return cls(name, precision)  # type: ignore[arg-type]

    @property
    def title(self) -> str:
        """Returns the name of what may compute in PyTorch's place, for people."""
        return "ONNX Runtime" if self.name == "onnxruntime" else "OpenVINO"

    @property
    def device(self) -> str:
        """Returns the device to load a bundle on: what only CPUs have is asked for there."""
        return "cpu" if self._of_cpus else "auto"

    @property
    def _of_cpus(self) -> bool:
        return self.name in _OF_CPUS or self.precision == "bf16"

    def check(self, bundle: Bundle) -> None:
        """Checks that it can run a bundle.

        Raises:
            UserError: If the bundle is a file of another runtime, or on a GPU.
        """
        if self == Engine():
            return
        asked = f"--engine {self.name}" if self.name != "auto" else f"--precision {self.precision}"
        format = bundle.export.get("format", "safetensors")
        own = format == "openvino" and self.name in ("auto", "openvino")
        own = own or (format == "onnx" and self.name == "onnxruntime")
        if format != "safetensors" and not own:
            raise UserError(
                f"{asked}: found a bundle that was exported as {format}, which has a runtime of "
                "its own; allowed: a bundle of safetensors, such as RUN/best"
            )
        if bundle.device.type != "cpu" and self._of_cpus:
            raise UserError(f"{asked}: found a bundle on {bundle.device}, allowed --device cpu")


def engine_runtime(bundle: Bundle, engine: Engine, threads: int) -> Runtime | None:
    """Makes what answers in place of a bundle's PyTorch network, compared with it once.

    Args:
        bundle: The bundle.
        engine: What was asked for.
        threads: Threads of all passes together.

    Returns:
        A runtime without PyTorch's weights; None if the bundle's own answers. Where another engine
        was to answer and cannot, the log says why.
    """
    plain = bundle.runtime
    if isinstance(plain, OpenvinoRuntime):
        return plain.again(threads, engine.precision)
    if not isinstance(plain, TorchRuntime) or bundle.device.type != "cpu":
        return None
    if engine.name == "torch" or (engine.name == "auto" and not usable()):
        return None
    try:
        if engine.name == "onnxruntime":
            return _by_onnxruntime(plain, threads)
        return _by_openvino(plain, engine.precision, threads)
    except EngineRefused as error:
        _log.warning("%s is not used, PyTorch answers: %s", engine.title, error)
        return None


def load_for(engine: Engine, path: str | Path) -> Bundle:
    """Loads a bundle that an engine runs.

    Raises:
        UserError: If it cannot be loaded, or the engine cannot run it.
    """
    bundle = load_bundle(path, engine.device)
    engine.check(bundle)
    if isinstance(bundle.runtime, OpenvinoRuntime) and engine.precision != "fp32":
        runtime = bundle.runtime.again(torch.get_num_threads(), engine.precision)
        return replace(bundle, runtime=runtime)
    return bundle


def named(runtime: Runtime, engine: Engine) -> str:
    """Returns the name of what runs a bundle, for people."""
    if isinstance(runtime, OpenvinoRuntime):
        return f"OpenVINO {runtime.precision}"
    if isinstance(runtime, OnnxRuntime):
        return "ONNX Runtime"
    if not isinstance(runtime, TorchRuntime):
        return "torch.export"
    return f"PyTorch {engine.precision}"


def _by_openvino(plain: TorchRuntime, precision: Precision, threads: int) -> OpenvinoRuntime:
    """Converts the network.

    Raises:
        EngineRefused: If OpenVINO cannot read it, or answers differ by more than `LIMITS`.
    """
    how = plain.preprocessing
    model = read_module(Deployed(plain.network, how, inside=True))
    runtime = OpenvinoRuntime(model, how, inside=True, threads=threads, precision=precision)
    squares = examples(how.side)
    refuse_others(runtime.logits(squares), plain.logits(squares), precision)
    return runtime


def _by_onnxruntime(plain: TorchRuntime, threads: int) -> OnnxRuntime:
    """Writes the network as a graph in memory.

    Raises:
        EngineRefused: If ONNX Runtime cannot read it, or answers differ by more than `LIMITS`.
    """
    how = plain.preprocessing
    module = Deployed(plain.network, how, inside=True)
    try:
        runtime = OnnxRuntime(
            onnx_bytes(module, module.example()), how, inside=True, threads=threads
        )
    except BundleError as error:
        raise EngineRefused(str(error)) from error
    squares = examples(how.side)
    refuse_others(runtime.logits(squares), plain.logits(squares), "fp32")
    return runtime


def refuse_others(found: Tensor, expected: Tensor, precision: Precision) -> None:
    """Compares logits (B, C) of an engine with PyTorch's, as probabilities.

    Raises:
        EngineRefused: If one differs by more than `LIMITS`.
    """
    if found.shape != expected.shape:
        raise EngineRefused(f"its output is {tuple(found.shape)}, not {tuple(expected.shape)}")
    difference = float((found.softmax(dim=1) - expected.softmax(dim=1)).abs().max())
    # In this form a result that is not finite does not agree.
    if not difference <= LIMITS[precision]:
        raise EngineRefused(
            f"its probabilities differ from PyTorch's by {difference:.1e}, allowed "
            f"{LIMITS[precision]:.0e}"
        )


def examples(side: int, count: int = _EXAMPLES) -> np.ndarray:
    """Returns images for a comparison: (count, side, side, 3) uint8, patches of every size.

    Args:
        side: Side of the squares in pixels.
        count: Number of images.
    """
    generator = np.random.default_rng(0)
    squares = np.zeros((count, side, side, 3))
    for cells in (3, 9, 27):
        for square in squares:
            coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            layer = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            square += np.asarray(layer) / 3
    return squares.astype(np.uint8)
