"""Images: sources, splits, the decoded-image cache, augmentation and loaders.

Names are imported at their first use: `gsfl-tune check` lists images without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.cache import acquire, build_once, cache_directory
    from gsfl_tune.data.annotations import Annotations
    from gsfl_tune.data.augment import Augment, center_crop
    from gsfl_tune.data.batch import Batch, Targets
    from gsfl_tune.data.dataset import Dataset
    from gsfl_tune.data.decoded import BrokenImage, DecodedImages
    from gsfl_tune.data.duplicates import Duplicates
    from gsfl_tune.data.image_file import load_image, load_square, square, square_side
    from gsfl_tune.data.loader import epoch_batches, eval_batches, view_batches
    from gsfl_tune.data.preparation import prepare
    from gsfl_tune.data.views import Views

__all__ = [
    "Annotations",
    "Augment",
    "Batch",
    "BrokenImage",
    "Dataset",
    "DecodedImages",
    "Duplicates",
    "Targets",
    "Views",
    "acquire",
    "build_once",
    "cache_directory",
    "center_crop",
    "epoch_batches",
    "eval_batches",
    "load_image",
    "load_square",
    "prepare",
    "square",
    "square_side",
    "view_batches",
]

_HOMES = {
    "Annotations": "data.annotations",
    "Augment": "data.augment",
    "Batch": "data.batch",
    "BrokenImage": "data.decoded",
    "Dataset": "data.dataset",
    "DecodedImages": "data.decoded",
    "Duplicates": "data.duplicates",
    "Targets": "data.batch",
    "Views": "data.views",
    "acquire": "cache",
    "build_once": "cache",
    "cache_directory": "cache",
    "center_crop": "data.augment",
    "epoch_batches": "data.loader",
    "eval_batches": "data.loader",
    "load_image": "data.image_file",
    "load_square": "data.image_file",
    "prepare": "data.preparation",
    "square": "data.image_file",
    "square_side": "data.image_file",
    "view_batches": "data.loader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"gsfl_tune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
