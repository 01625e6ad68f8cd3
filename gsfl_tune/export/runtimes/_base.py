"""What all runtimes share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import center_crop
from gsfl_tune.export.preprocessing import Preprocessing


class Runtime(ABC):
    """A model that runs: decoded squares in, logits out.

    Args:
        preprocessing: What happens to a square first.
        inside: Whether the model does that itself, and gives probabilities.
    """

    def __init__(self, preprocessing: Preprocessing, *, inside: bool = False) -> None:
        self.preprocessing = preprocessing
        self.inside = inside

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    def logits(self, squares: np.ndarray) -> Tensor:
        """(B, C) float32 logits on the CPU of (B, side, side, 3) uint8 squares.

        A model that gives probabilities has no logits; their logarithms are the logits up to a
        constant an image, which no metric and no softmax sees.
        """
        images = torch.from_numpy(squares).to(self.device)
        if not self.inside:
            images = center_crop(
                images,
                self.preprocessing.image_size,
                self.preprocessing.mean,
                self.preprocessing.std,
            )
        with torch.inference_mode():
            outputs = self.run(images).float().cpu()
        if not self.inside:
            return outputs
        return outputs.clamp(min=torch.finfo(torch.float32).tiny).log()

    @abstractmethod
    def run(self, images: Tensor) -> Tensor:
        """Outputs of the model, (B, C), for the inputs that it takes."""
