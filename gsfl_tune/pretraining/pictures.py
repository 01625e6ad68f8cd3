"""What a backbone learned without labels, in pictures of validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gsfl_tune.data import Dataset
from gsfl_tune.data.augment import center_crop
from gsfl_tune.evidence.blend import blend
from gsfl_tune.evidence.gradcam import enlarged
from gsfl_tune.report.embedding import jpeg_url
from gsfl_tune.report.pretraining import Pictures
from gsfl_tune.run import whole_file
from gsfl_tune.training.pretrain import Pretraining

_SHOWN = 8
_QUALITY = 85
# Small decoded images are enlarged, so that their pixels can be seen.
_SIDE = 128


def shown_images(dataset: Dataset) -> NDArray[np.int64]:
    """Chooses validation images, spread over the classes: (N,) positions, N at most 8."""
    index = dataset.validation_index
    labels = np.asarray(dataset.pool.labels)[index]
    _, first = np.unique(labels, return_index=True)
    chosen = first[np.linspace(0, len(first) - 1, min(_SHOWN, len(first))).round().astype(int)]
    return np.asarray(index[np.sort(chosen)], dtype=np.int64)


def keep_maps(training: Pretraining, dataset: Dataset, file: Path) -> None:
    """Writes the maps of the backbone before its training, if the file is not there yet."""
    if file.exists():
        return
    maps = training.network.agreement_maps(_inputs(training, dataset)).cpu().numpy()
    with whole_file(file) as temporary, temporary.open("wb") as target:
        np.save(target, maps, allow_pickle=False)


def pictures_of(training: Pretraining, dataset: Dataset, file: Path) -> list[Pictures]:
    """Makes the pictures of a trained backbone.

    Args:
        training: The pretraining, at its end.
        dataset: Has the images.
        file: Maps from before the training, see `keep_maps`; they may be missing.
    """
    inputs = _inputs(training, dataset)
    chosen = shown_images(dataset)
    squares = dataset.pool.gather(chosen)
    images = _pixels(
        center_crop(torch.from_numpy(squares), training.image_size, (0, 0, 0), (1, 1, 1))
    )
    nothing: Sequence[NDArray[np.uint8] | None] = [None] * len(images)
    maps = training.network.agreement_maps(inputs).cpu()
    # A map of one position says nothing about places.
    placed = maps[0].numel() > 1
    after = _heat(images, maps) if placed else nothing
    before = nothing
    if placed and file.exists():
        before = _heat(images, torch.from_numpy(np.load(file, allow_pickle=False)))
    decoded = [nothing, nothing]
    if training.network.discriminative is not None:
        generator = torch.Generator().manual_seed(training.config.seed)
        found = training.network.decoded(inputs, generator)
        mean, std = (torch.tensor(each)[:, None, None] for each in (training.mean, training.std))
        decoded = [_pixels(each.cpu() * std + mean) for each in found]
    names = [Path(dataset.pool.paths[place]).name for place in chosen]
    return [
        Pictures(name, *(None if each is None else _url(each) for each in row))
        for name, *row in zip(names, images, before, after, *decoded, strict=True)
    ]


def _inputs(training: Pretraining, dataset: Dataset) -> Tensor:
    squares = torch.from_numpy(dataset.pool.gather(shown_images(dataset)))
    inputs = center_crop(squares, training.image_size, training.mean, training.std)
    return inputs.to(training.device).contiguous(memory_format=torch.channels_last)


def _heat(images: Sequence[NDArray[np.uint8]], maps: Tensor) -> list[NDArray[np.uint8]]:
    large = enlarged(maps, images[0].shape[0])
    return [blend(image, heat) for image, heat in zip(images, large, strict=True)]


def _pixels(images: Tensor) -> list[NDArray[np.uint8]]:
    """Converts (N, 3, s, s) in 0..1 to N times (s, s, 3) uint8."""
    levels = (255 * images.clamp(0, 1)).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).numpy())


def _url(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    if picture.width < _SIDE:
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    else:
        picture.thumbnail((_SIDE, _SIDE))
    return jpeg_url(picture, _QUALITY)
