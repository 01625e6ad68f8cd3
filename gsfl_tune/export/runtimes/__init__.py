"""Runtimes of a bundle: PyTorch, ONNX Runtime, OpenVINO, or a program of ``torch.export``."""

from gsfl_tune.export.runtimes._base import Runtime
from gsfl_tune.export.runtimes._exported import ExportedRuntime
from gsfl_tune.export.runtimes._onnx import OnnxRuntime
from gsfl_tune.export.runtimes._openvino import OpenvinoRuntime
from gsfl_tune.export.runtimes._torch import TorchRuntime

__all__ = ["ExportedRuntime", "OnnxRuntime", "OpenvinoRuntime", "Runtime", "TorchRuntime"]
