"""The images of the training part, with the digests of their files."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.data.dataset import Dataset


@dataclass(frozen=True)
class TrainingImage:
    """Names an image of the training part.

    Attributes:
        path: Its name for messages.
        digest: Digest of its file.
        row: Its position in the data set's `pool`.
    """

    path: str
    digest: bytes
    row: int


def training_images(dataset: Dataset) -> list[list[TrainingImage]]:
    """Lists the images of the training part, but synthetic ones.

    Args:
        dataset: The images.

    Returns:
        The images of each class, ordered by their digests: an order that names do not change.
    """
    source = dataset._source
    positions = dataset._pool_positions()
    found: list[list[TrainingImage]] = [[] for _ in dataset.classes]
    for row in dataset.train_index.tolist():
        position = int(positions[row])
        if position not in source.synthetic:
            sample = source.samples[position]
            digest = dataset._digests[position]
            found[sample.label].append(TrainingImage(sample.path, digest, row))
    for images in found:
        # Copies of one file differ in their boxes and rows, which have an order too.
        images.sort(key=lambda image: (image.digest, image.path))
    return found
