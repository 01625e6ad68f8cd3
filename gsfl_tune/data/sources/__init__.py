"""Where images come from: one file for each source."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.data.sources._base import Part, Reader, Sample, Source
from gsfl_tune.data.sources._detect import detect_source
from gsfl_tune.data.sources._remote import find_parquet, list_url
from gsfl_tune.data.sources._tables import Columns, class_names
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
from gsfl_tune.experiment.errors import UserError

# The classes of public data sets, which nobody has to count.
_CLASSES = {
    "typefaces": 21,
    "cub": 200,
    "aircraft": 100,
    "flowers102": 102,
    "pets": 37,
    "cars": 196,
}

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
    "count_classes",
    "create_source",
    "detect_source",
    "list_url",
]


def create_source(config: DataConfig, cache: Path, *, scoring: bool = False) -> Source:
    """Lists the images that a configuration names.

    Args:
        config: The section ``data``.
        cache: Where files of other machines may be kept.
        scoring: Whether nothing is trained: classes are then those of all parts, not those that
            training images have.

    Raises:
        UserError: If the source is missing or its layout is not the expected one.
    """
    match config.source:
        case "auto":
            name = detect_source(config.path)
            found = config.model_copy(update={"source": name})
            source = create_source(found, cache, scoring=scoring)
            source.notices.insert(0, f"data.source: auto: {_shown(config)} is read as {name}")
            return source
        case "folder":
            return FolderSource(config.path, classes=config.classes, scoring=scoring)
        case "cub":
            return CubSource(config.path)
        case "parquet":
            return ParquetSource(
                config.path,
                cache,
                config=config.config,
                image_column=config.image_column,
                label_column=config.label_column,
                group_column=config.group_column,
                scoring=scoring,
            )
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


def count_classes(config: DataConfig) -> int | None:
    """How many classes the data has, where it can be told without reading images.

    Args:
        config: The section ``data``.

    Returns:
        The number; None where files are elsewhere, missing, or do not say it.
    """
    try:
        name = detect_source(config.path) if config.source == "auto" else config.source
        if name in _CLASSES:
            return _CLASSES[name]
        if name == "folder":
            return len(FolderSource(config.path, classes=config.classes).classes) or None
        if name == "parquet" and not any("://" in path for path in _paths(config)):
            files = find_parquet(config.path, Path(), config.config)
            columns = Columns(config.image_column, config.label_column)
            return max((len(class_names(file, columns) or []) for file in files), default=0) or None
    except (UserError, OSError):
        return None  # `prepare` says what is wrong
    return None


def _paths(config: DataConfig) -> list[str]:
    return [config.path] if isinstance(config.path, str) else config.path or []


def _shown(config: DataConfig) -> str:
    paths = _paths(config)
    return paths[0] if len(paths) == 1 else f"data.path ({len(paths)} entries)"
