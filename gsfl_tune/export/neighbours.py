"""Training images in a bundle: features and thumbnails, and those nearest to a new image.

Nearness is the cosine of the discriminative parts: of what the classifier reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.bundles import files
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data.augment import center_crop
from gsfl_tune.models import Network


@dataclass(frozen=True)
class Neighbour:
    """Holds a training image near to another image.

    Attributes:
        name: Path of its file inside the folder of all images.
        label: Its class.
        similarity: Cosine of both discriminative parts, at most 1.
        picture: A thumbnail, the content of a JPEG file.
    """

    name: str
    label: str
    similarity: float
    picture: bytes


class Neighbours:
    """Finds training images near to others.

    Args:
        tensors: Those of ``neighbours.safetensors``.
        classes: Class names, in the order of the labels.

    Raises:
        BundleError: If the tensors do not fit together.
    """

    def __init__(self, tensors: Mapping[str, Tensor], classes: Sequence[str]) -> None:
        try:
            self._features = tensors["features"].float()
            self._labels = tensors["labels"].tolist()
            self._pictures = tensors["pictures"].numpy().tobytes()
            self._ends = tensors["ends"].tolist()
            self._names: list[str] = json.loads(tensors["names"].numpy().tobytes())
        except (KeyError, ValueError) as error:
            raise files.BundleError(f"{files.NEIGHBOURS}: damaged ({error})") from error
        self._classes = list(classes)
        sizes = {len(self._features), len(self._labels), len(self._ends), len(self._names)}
        labels = range(len(classes))
        whole = not self._ends or self._ends[-1] == len(self._pictures)
        if len(sizes) > 1 or not whole or any(label not in labels for label in self._labels):
            raise files.BundleError(f"{files.NEIGHBOURS}: its tensors do not fit together")

    def __len__(self) -> int:
        return len(self._labels)

    def nearest(self, parts: Tensor, count: int) -> list[list[Neighbour]]:
        """Returns the nearest training images of each row, nearest first.

        Args:
            parts: (B, H) of `unit_parts`.
            count: Images per row; all if there are fewer.
        """
        similarity = parts.cpu().float() @ self._features.T
        best = similarity.topk(min(count, len(self)), dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [
            [self._neighbour(place, value) for place, value in zip(places, values, strict=True)]
            for places, values in rows
        ]

    def _neighbour(self, place: int, similarity: float) -> Neighbour:
        start = self._ends[place - 1] if place else 0
        return Neighbour(
            self._names[place],
            self._classes[self._labels[place]],
            min(1.0, similarity),
            self._pictures[start : self._ends[place]],
        )


def unit_parts(network: Network, squares: np.ndarray, how: Preprocessing) -> Tensor:
    """Computes the discriminative parts (B, H) float32, of unit length, of squares.

    Args:
        network: A network in eval mode.
        squares: (B, side, side, 3) uint8.
        how: Its preprocessing.
    """
    device = next(network.head.parameters()).device
    pixels = torch.from_numpy(squares).to(device)
    with torch.inference_mode():
        images = center_crop(pixels, how.image_size, how.mean, how.std)
        f = network.features(images.contiguous(memory_format=torch.channels_last))
        d = network.head(f.to(network.head.classifier.weight.dtype)).discriminative
        return functional.normalize(d.float(), dim=1)
