"""The base class of all runtimes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data.augment import center_crop


class Runtime(ABC):
    """Runs a model: decoded squares in, logits out.

    Args:
        preprocessing: The preprocessing of a square.
        inside: Whether the model does that itself, and gives probabilities.
    """

    def __init__(self, preprocessing: Preprocessing, *, inside: bool = False) -> None:
        self.preprocessing = preprocessing
        self.inside = inside

    @property
    def device(self) -> torch.device:
        """Returns the device of the model."""
        return torch.device("cpu")

    def logits(self, squares: np.ndarray) -> Tensor:
        """Computes logits (B, C) float32 on the CPU of squares (B, side, side, 3) uint8.

        A model that gives probabilities has no logits. Their logarithms are the logits up to a
        constant per image, which changes no metric and no softmax.
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
        """Returns the model's outputs (B, C) for its inputs."""
