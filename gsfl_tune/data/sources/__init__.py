"""Where images come from: one file for each source."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.data.sources._base import Part, Reader, Sample, Source
from gsfl_tune.data.sources._remote import list_url
from gsfl_tune.data.sources.cub import CubSource
from gsfl_tune.data.sources.folder import FolderSource
from gsfl_tune.data.sources.parquet import ParquetSource
from gsfl_tune.data.sources.torchvision_sets import (
    AircraftSource,
    CarsSource,
    FlowersSource,
    PetsSource,
)
from gsfl_tune.data.sources.typefaces import TypefacesSource
from gsfl_tune.experiment.config import DataConfig

__all__ = [
    "AircraftSource",
    "CarsSource",
    "CubSource",
    "FlowersSource",
    "FolderSource",
    "ParquetSource",
    "Part",
    "PetsSource",
    "Reader",
    "Sample",
    "Source",
    "TypefacesSource",
    "create_source",
    "list_url",
]


def create_source(config: DataConfig, cache: Path) -> Source:
    """Lists the images that a configuration names.

    Args:
        config: The section ``data``.
        cache: Where files of other machines may be kept.

    Raises:
        UserError: If the source is missing or its layout is not the expected one.
    """
    match config.source:
        case "folder":
            return FolderSource(config.path)
        case "cub":
            return CubSource(config.path)
        case "parquet":
            return ParquetSource(config.path, cache)
        case "aircraft":
            return AircraftSource(config.path, download=config.download)
        case "flowers102":
            return FlowersSource(config.path, download=config.download)
        case "pets":
            return PetsSource(config.path, download=config.download)
        case "cars":
            return CarsSource(config.path, download=config.download)
        case "typefaces":
            return TypefacesSource(config.typefaces)
