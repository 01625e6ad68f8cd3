"""Images: sources, splits, the decoded-image cache, augmentation and loaders."""

from gsfl_tune.cache import acquire, build_once, cache_directory
from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.augment import Augment, center_crop
from gsfl_tune.data.batch import Batch, Targets
from gsfl_tune.data.contact_sheet import contact_sheet
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
    "contact_sheet",
    "epoch_batches",
    "eval_batches",
    "load_image",
    "load_square",
    "prepare",
    "square",
    "square_side",
    "view_batches",
]
