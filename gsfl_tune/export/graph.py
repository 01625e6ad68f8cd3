"""The exported module: the network, with or without its preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data.image_file import square_side
from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.models import Ensemble, Network

INPUT = "images"
# Batch sizes that a new file is tested with; it was written from a batch of two.
_TRIED = (1, 3)


class Prepare(nn.Module):
    """Converts squares of bytes to backbone inputs, with operations that every format supports.

    The result equals `gsfl_tune.data.augment.center_crop`, up to rounding. Resizing multiplies by
    one matrix from each side; the matrix has only the rows of the centre crop.

    Args:
        preprocessing: The preprocessing of a square.
    """

    mean: Tensor
    std: Tensor
    resize: Tensor | None

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        size = preprocessing.image_size
        whole = square_side(size)
        self.start = (whole - size) // 2
        self.size = size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1))
        matrix = None
        if preprocessing.side != whole:
            matrix = resize_matrix(preprocessing.side, whole)[self.start : self.start + size]
        self.register_buffer("resize", matrix)

    def forward(self, squares: Tensor) -> Tensor:
        """Converts (B, side, side, 3) uint8 to (B, 3, size, size) float32, normalised."""
        values = squares.permute(0, 3, 1, 2)
        if self.resize is None:
            stop = self.start + self.size
            values = values[:, :, self.start : stop, self.start : stop].float() / 255
        else:
            values = values.float() / 255
            values = (self.resize @ values @ self.resize.T).clamp(0, 1)
        # One axis for all pixels: OpenVINO's plugin of the CPU would join the arithmetic with the
        # product in front, whose last axis it takes for the channels.
        flat = (values.flatten(2) - self.mean) / self.std
        return flat.unflatten(2, (self.size, self.size))


def resize_matrix(side: int, new: int) -> Tensor:
    """Returns the weights (new, side) of torch's bicubic resizing with antialiasing."""
    rows = torch.eye(side)[None, None]
    return F.interpolate(
        rows, size=(new, side), mode="bicubic", align_corners=False, antialias=True
    )[0, 0]


class Deployed(nn.Module):
    """Wraps a network for deployment.

    Args:
        network: The network, or several; it is copied.
        preprocessing: The preprocessing of a square.
        inside: Whether the preprocessing is inside: then it takes squares of bytes and gives
            probabilities, else it takes normalised images and gives logits.
        half: Weights and arithmetic in float16; inputs and outputs stay float32.
    """

    def __init__(
        self,
        network: Network | Ensemble,
        preprocessing: Preprocessing,
        *,
        inside: bool,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        if half:
            self.network.half()
        self.dtype = torch.float16 if half else torch.float32
        self.prepare = Prepare(preprocessing) if inside else None
        self.preprocessing = preprocessing
        self.eval()

    @property
    def output(self) -> str:
        """Returns the name of the output."""
        return "logits" if self.prepare is None else "probabilities"

    def example(self, count: int = 2) -> Tensor:
        """Returns inputs of the right shape and type."""
        if self.prepare is None:
            size = self.preprocessing.image_size
            return torch.zeros(count, 3, size, size)
        side = self.preprocessing.side
        return torch.zeros(count, side, side, 3, dtype=torch.uint8)

    def forward(self, images: Tensor) -> Tensor:
        """Computes logits or probabilities (B, C) of a batch."""
        if self.prepare is not None:
            images = self.prepare(images)
        logits = self.network.infer(images.to(self.dtype)).float()
        return logits if self.prepare is None else logits.softmax(dim=1)


def require_dynamic(format_name: str, sizes: Iterable[object]) -> None:
    """Refuses a graph with a fixed batch size.

    Args:
        format_name: Value of ``--format``.
        sizes: The first dimension of its input and of its output.

    Raises:
        UserError: If one of them is a number.
    """
    for size in sizes:
        if isinstance(size, int):
            raise _fixed(format_name, f"takes only batches of {size} images")


def require_any_batch(format_name: str, run: Callable[[Tensor], Tensor], module: Deployed) -> None:
    """Runs a new file on batches of other sizes than the one it was written from.

    Args:
        format_name: Value of ``--format``.
        run: Runs the file.
        module: The module it was written from.

    Raises:
        UserError: If it cannot run one, or does not give one row per image.
    """
    for count in _TRIED:
        images = module.example(count)
        try:
            with torch.inference_mode():
                shape = tuple(run(images).shape)
        except Exception as error:  # every runtime has its own error classes
            reason = first_line(error)
            raise _fixed(format_name, f"cannot run a batch of {count} ({reason})") from error
        if shape[0] != count:
            raise _fixed(format_name, f"gives {shape[0]} rows for a batch of {count}")


def _fixed(format_name: str, found: str) -> UserError:
    return UserError(
        f"--format {format_name}: the file of this network {found}; allowed: safetensors "
        "(or a pooling or backbone that does not count the images of a batch)"
    )
