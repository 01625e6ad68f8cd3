"""Images in one NumPy file, as MedMNIST distributes them.

Source: Yang et al., "MedMNIST v2", Scientific Data 2023.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gsfl_tune.data.sources import Part, Reader, Sample, Source, SourceRequest
from gsfl_tune.experiment import UserError

PARTS: dict[str, Part] = {"train": "train", "val": "validation", "test": "test"}


class ImageArrays(Source):
    """`train_images` (N, H, W) or (N, H, W, 3), `train_labels` (N, 1), and so for val and test."""

    def __init__(self, request: SourceRequest) -> None:
        """Lists the images; none of them is read."""
        super().__init__()
        if not isinstance(request.path, str):
            raise UserError("data.path must name one .npz file")
        self.file = Path(request.path)
        self.rows: list[tuple[str, int]] = []
        try:
            # Without pickles, which could run anything.
            arrays = np.load(self.file, allow_pickle=False)
            labels = {name: arrays[f"{name}_labels"].reshape(-1).tolist() for name in PARTS}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.file}: {error}") from error
        # As long as it is the same, so are the images: their digests are remembered.
        status = self.file.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        self.classes = [str(number) for number in range(1 + max(labels["train"]))]
        for name, part in PARTS.items():
            for row, label in enumerate(labels[name]):
                self.samples.append(Sample(label, part, f"{self.file}#{name}[{row}]", stamp))
                self.rows.append((name, row))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields a function for each position, in their order, that gives bytes or an image."""
        loaded, images = "", np.empty(0)
        for position in positions:
            name, row = self.rows[position]
            if name != loaded:
                # One part at a time: positions ascend.
                loaded, images = name, np.load(self.file, allow_pickle=False)[f"{name}_images"]
            yield position, functools.partial(_picture, images[row])


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")
