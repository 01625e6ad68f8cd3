"""Two changed views of every image, for learning without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.dataset import Dataset
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.data.transforms.blur import Blur
from gsfl_tune.data.transforms.grey import Grey
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.pretrain_config import PretrainAugmentConfig


class ContrastAugment(Augment):
    """Applies crop, flip, colour jitter, loss of colour and blur to each image.

    Args:
        config: Strengths of the changes.
        size: Side of the result in pixels.
        mean: Mean of the three channels, of values in 0..1.
        std: Standard deviation of the three channels.
    """

    def __init__(
        self,
        config: PretrainAugmentConfig,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        basic = AugmentConfig(
            scale=config.scale, ratio=config.ratio, flip=config.flip, color=config.color
        )
        super().__init__(basic, size, mean, std)
        self.further = [
            *([Grey(config.grey)] if config.grey > 0 else []),
            *([Blur(config.blur)] if config.blur > 0 else []),
        ]


def local_augment(
    config: PretrainAugmentConfig, size: int, mean: Sequence[float], std: Sequence[float]
) -> ContrastAugment:
    """Makes the changes of small crops, the local views of multi-crop; see `ContrastAugment`.

    Source: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020: their areas are a share of the image between two bounds.
    """
    low = config.local_scale
    made = ContrastAugment(config.model_copy(update={"scale": low}), size, mean, std)
    made.largest = max(config.scale, low)
    return made


class JoinedImages(DecodedImages):
    """Joins images of several files, one after the other; labels say nothing.

    Args:
        parts: The images, decoded to the same side.
    """

    def __init__(self, parts: Sequence[DecodedImages]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.labels = np.zeros(int(self._ends[-1]), dtype=np.int64)
        self.paths = [path for part in self.parts for path in part.paths]
        self.sizes = np.concatenate([part.sizes for part in self.parts])
        self.side = self.parts[0].side
        self.digest = " ".join(part.digest for part in self.parts)
        self.name = self.parts[0].name

    def __len__(self) -> int:
        return len(self.labels)

    def squares(self, index: np.ndarray) -> list[np.ndarray]:
        """Returns the squares at ``index`` (positions 0..N-1), as `DecodedImages.squares`."""
        positions = np.asarray(index, dtype=np.int64)
        parts = np.searchsorted(self._ends, positions, side="right")
        starts = self._ends - [len(part) for part in self.parts]
        found: list[np.ndarray] = [np.empty(0)] * len(positions)
        for number, part in enumerate(self.parts):
            places = np.flatnonzero(parts == number)
            squares = part.squares(positions[places] - starts[number])
            for place, square in zip(places.tolist(), squares, strict=True):
                found[place] = square
        return found


def images_without_labels(dataset: Dataset) -> JoinedImages:
    """Returns what may be learned from without labels.

    These are the images of the training part, with those that ``data.shots`` leaves without a
    label, and those of ``data.unlabelled``. Images of the validation and test parts are not among
    them, nor copies of them.
    """
    split = dataset.split
    own = dataset.view(np.sort(np.concatenate([split.train, split.spare])))
    return JoinedImages([own] if dataset.unlabelled is None else [own, dataset.unlabelled])
