"""Features and thumbnails of training images, for a bundle that shows the nearest ones."""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.neighbours import unit_parts
from gsfl_tune.models import Network

PER_CLASS = 100
_THUMBNAIL = 96
_QUALITY = 80
_BATCH = 32


def neighbour_tensors(network: Network, images: RunImages, per_class: int) -> dict[str, Tensor]:
    """Computes what a bundle stores of the images that its network was trained on.

    Args:
        network: The bundle's network.
        images: Images of the run.
        per_class: Images of each class at most, spread evenly over the class.
    """
    pool, final = images.dataset.pool, images.dataset.final_index
    chosen = _spread(final, pool.labels[final], per_class)
    features, pictures = [], []
    with activity("features of the training images", len(chosen), "images") as step:
        for start in range(0, len(chosen), _BATCH):
            squares = pool.gather(chosen[start : start + _BATCH])
            features.append(unit_parts(network, squares, images.preprocessing).half().cpu())
            pictures += [_thumbnail(square) for square in squares]
            step.done = start + len(squares)
    names = inside([pool.paths[place] for place in chosen.tolist()])
    return {
        "features": torch.cat(features),
        "labels": torch.from_numpy(pool.labels[chosen]).int(),
        "pictures": _bytes(b"".join(pictures)),
        "ends": torch.tensor(np.cumsum([len(each) for each in pictures]), dtype=torch.int64),
        "names": _bytes(json.dumps(names, ensure_ascii=False).encode()),
    }


def _spread(positions: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Returns at most so many positions of each label, evenly spread, ascending."""
    kept = []
    for label in np.unique(labels).tolist():
        own = positions[labels == label]
        places = np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(np.int64)
        kept.append(own[places])
    return np.sort(np.concatenate(kept))


def inside(paths: list[str]) -> list[str]:
    """Returns paths without the folder that all of them are in, which is nobody's concern."""
    folders = [path.split("/")[:-1] for path in paths]
    depth = 0
    while all(len(each) > depth and each[depth] == folders[0][depth] for each in folders):
        depth += 1
    return ["/".join(path.split("/")[depth:]) for path in paths]


def _thumbnail(square: np.ndarray) -> bytes:
    small = Image.fromarray(square)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
