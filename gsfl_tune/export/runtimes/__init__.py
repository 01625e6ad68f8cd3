"""Runtimes of a bundle: PyTorch, ONNX Runtime, or a program of ``torch.export``."""

from gsfl_tune.export.runtimes._base import Runtime
from gsfl_tune.export.runtimes._exported import ExportedRuntime
from gsfl_tune.export.runtimes._onnx import OnnxRuntime
from gsfl_tune.export.runtimes._torch import TorchRuntime

__all__ = ["ExportedRuntime", "OnnxRuntime", "Runtime", "TorchRuntime"]
