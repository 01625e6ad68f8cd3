"""Export of the winner: write a bundle, load it, predict with it."""

from gsfl_tune.bundles.architecture import Architecture, shared_tensors
from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export.bundle import bundle_from_network, load_bundle, write_bundle
from gsfl_tune.export.options import FORMATS, PRECISIONS, Options
from gsfl_tune.export.prediction import Prediction
from gsfl_tune.export.predictor import Bundle, ImageError
from gsfl_tune.export.read_images import LazyImage
from gsfl_tune.export.run import export_run, write_best_training

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "Architecture",
    "Bundle",
    "BundleError",
    "ImageError",
    "LazyImage",
    "Options",
    "Prediction",
    "Preprocessing",
    "bundle_from_network",
    "export_run",
    "load_bundle",
    "shared_tensors",
    "write_best_training",
    "write_bundle",
]
