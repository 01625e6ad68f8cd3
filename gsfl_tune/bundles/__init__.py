"""Bundles on disk: their files, and the network that they describe."""

from gsfl_tune.bundles.architecture import Architecture, shared_tensors
from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.bundles.reading import read_description, read_network, stored_network

__all__ = [
    "Architecture",
    "BundleError",
    "Preprocessing",
    "read_description",
    "read_network",
    "shared_tensors",
    "stored_network",
]
