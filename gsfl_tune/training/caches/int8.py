"""Frozen backbones in int8 (extra ``export``): quantised once a node, and compared there.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; by ONNX Runtime, see
`gsfl_tune.models.onnx_quantise`. The ranges of activations are those of training images alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.cores import processor
from gsfl_tune.data import DecodedImages
from gsfl_tune.data.augment import center_crop
from gsfl_tune.models import Backbone
from gsfl_tune.models.frozen_forward import EngineRefused
from gsfl_tune.models.int8_forward import int8_forward
from gsfl_tune.models.onnxruntime_forward import PACKAGES, OnnxruntimeForward, missing_packages
from gsfl_tune.run import read_json, write_json
from gsfl_tune.training.caches.keys import digest

# Part of every key; raise it when this file computes other numbers.
CODE_VERSION = 1

# Training images whose activations are seen.
_SEEN, _BATCH = 128, 8
_GRAPH, _REPORT = "backbone.onnx", "report.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """Holds how a quantised backbone compares with PyTorch in fp32 on this machine.

    Attributes:
        refused: Why it is not used; empty if it is.
        distance: Largest distance of an output from PyTorch's, relative to its length; 0 if it was
            refused before it could be compared.
    """

    refused: str = ""
    distance: float = 0.0


class Int8Backbone:
    """Holds a frozen backbone in int8 for images of one size, or the reason why there is none.

    Args:
        key: What its numbers depend on.
        entry: Its directory in the node's cache.
    """

    def __init__(self, key: str, entry: Path) -> None:
        self.key = key
        self.report = Report(**read_json(entry / _REPORT))
        self._entry = entry

    @property
    def refused(self) -> str:
        """Returns why it is not used; empty if it is."""
        return self.report.refused

    def forward(self) -> OnnxruntimeForward:
        """Opens it; only where it is not refused."""
        return OnnxruntimeForward(None, self._entry / _GRAPH).eval()


def int8_problem(device: torch.device) -> str | None:
    """Says why features cannot be computed in int8 here; None if they can.

    Args:
        device: Device of the features.
    """
    if device.type != "cpu":
        return (
            f"found int8, but the images run on a GPU ({device}), and int8 is for CPUs; allowed: "
            "auto, fp32, bf16"
        )
    if missing := missing_packages():
        return (
            f"found int8, which needs {' and '.join(missing)}: run  pip install "
            "'gsfl-tune[export]'; allowed without: auto, fp32, bf16"
        )
    return None


def int8_backbone(
    backbone: Backbone, image_size: int, images: DecodedImages, index: np.ndarray, cache_dir: Path
) -> Int8Backbone:
    """Quantises a backbone with training images, or takes it from the node's cache.

    Where it cannot be quantised, or its outputs are farther from PyTorch's than
    `gsfl_tune.models.frozen_forward.INT8_TOLERANCE`, the log says why; that is kept too.

    Args:
        backbone: The pretrained backbone; it is copied.
        image_size: Side of the images in pixels.
        images: Decoded images of the pool.
        index: Positions of the training images, (N,).
        cache_dir: Root of the node's caches.
    """
    seen = index[np.linspace(0, len(index) - 1, min(_SEEN, len(index))).astype(np.int64)]
    key = digest(
        "int8", CODE_VERSION, *map(_version, ("torch", *PACKAGES)), backbone.digest,
        backbone.reads, image_size, images.digest, seen.tobytes(),
    )  # fmt: skip

    def inputs() -> Iterator[Tensor]:
        how = backbone.preprocessing
        # ONNX Runtime keeps the ranges of all batches, which must have one size.
        batch = min(_BATCH, len(seen))
        for start in range(0, len(seen) - batch + 1, batch):
            squares = torch.from_numpy(images.gather(seen[start : start + batch]))
            yield center_crop(squares, image_size, how.mean, how.std)

    def build(path: Path) -> None:
        path.mkdir()
        with activity(f"quantising {backbone.name}"):
            try:
                _, distance = int8_forward(backbone, inputs, path / _GRAPH)
                report = Report(distance=distance)
            except EngineRefused as error:
                report = Report(str(error))
                (path / _GRAPH).unlink(missing_ok=True)
        write_json(path / _REPORT, asdict(report))

    # Two kinds of CPU may multiply in other ways, and share the disk of a cache.
    file = cache_dir / "int8" / digest(key, processor())
    lock = acquire(file, build, what=f"{backbone.name}, {image_size} px, {images.name}")
    found = Int8Backbone(key, lock.path)
    lock.keep_with(found)
    if found.refused:
        _log.warning(
            "%s: int8 is not used, features are computed in fp32: %s", backbone.name, found.refused
        )
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
