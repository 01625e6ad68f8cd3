"""Sources of images: one file for each source."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.sources._added import (
    SourceRequest,
    added_source,
    source_faults,
    source_problem,
)
from gsfl_tune.data.sources._base import FileSource, Part, Reader, Sample, Source
from gsfl_tune.data.sources._coco import read_coco
from gsfl_tune.data.sources._columns import Given
from gsfl_tune.data.sources._described import find_descriptions, is_coco
from gsfl_tune.data.sources._detect import detect_source
from gsfl_tune.data.sources._remote import list_url
from gsfl_tune.data.sources._remote_classes import remote_classes
from gsfl_tune.data.sources._tables import Columns
from gsfl_tune.data.sources.arrow import ArrowSource, arrow_classes
from gsfl_tune.data.sources.coco import CocoSource
from gsfl_tune.data.sources.cub import CubSource
from gsfl_tune.data.sources.dogs import DogsSource
from gsfl_tune.data.sources.dtd import DTDSource
from gsfl_tune.data.sources.fiftyone import FiftyOneSource, fiftyone_classes
from gsfl_tune.data.sources.folder import FolderSource
from gsfl_tune.data.sources.food101 import Food101Source
from gsfl_tune.data.sources.gtsrb import GTSRBSource
from gsfl_tune.data.sources.inaturalist import INaturalistSource, inaturalist_classes
from gsfl_tune.data.sources.nabirds import NABirdsSource
from gsfl_tune.data.sources.parquet import ParquetSource, UnlabelledParquet, parquet_classes
from gsfl_tune.data.sources.table import TextTableSource
from gsfl_tune.data.sources.torchvision_sets import (
    AircraftSource,
    CarsSource,
    FlowersSource,
    PetsSource,
)
from gsfl_tune.data.sources.typefaces import TypefacesSource
from gsfl_tune.data.sources.webdataset import WebDatasetSource, webdataset_classes
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.plugins import plugins

# Number of classes of public data sets, known without counting.
_CLASSES = {
    "typefaces": 21,
    "cub": 200,
    "nabirds": 555,
    "dogs": 120,
    "food101": 101,
    "aircraft": 100,
    "flowers102": 102,
    "pets": 37,
    "cars": 196,
    "dtd": 47,
    "gtsrb": 43,
}

__all__ = [
    "AircraftSource",
    "ArrowSource",
    "CarsSource",
    "CocoSource",
    "CubSource",
    "DTDSource",
    "DogsSource",
    "FiftyOneSource",
    "FileSource",
    "FlowersSource",
    "FolderSource",
    "Food101Source",
    "GTSRBSource",
    "INaturalistSource",
    "NABirdsSource",
    "ParquetSource",
    "Part",
    "PetsSource",
    "Reader",
    "Sample",
    "Source",
    "SourceRequest",
    "TextTableSource",
    "TypefacesSource",
    "UnlabelledParquet",
    "WebDatasetSource",
    "count_classes",
    "create_source",
    "detect_source",
    "list_url",
    "source_faults",
    "source_problem",
]


def create_source(config: DataConfig, cache: Path, *, scoring: bool = False) -> Source:
    """Lists the images that a configuration names.

    Args:
        config: The section ``data``.
        cache: Folder for copies of remote files.
        scoring: Whether nothing is trained: classes are then those of all parts, not only of
            training images.

    Raises:
        UserError: If the source is missing, a part of it cannot be read, or its layout is not the
            expected one.
    """
    if config.source == "auto":
        name = detect_source(config.path)
        source = create_source(config.model_copy(update={"source": name}), cache, scoring=scoring)
        source.notices.insert(0, f"data.source: auto: {_shown(config)} is read as {name}")
        return source
    try:
        source = _create(config, cache, scoring)
    except OSError as error:
        raise disk_error(error, cache) from error
    if config.crop == "box" and not scoring and not any(each.box for each in source.samples):
        source.problems.append(
            f"data.crop: found box, but {_shown(config)} ({config.source}) has no boxes; allowed: "
            "none, or a source with boxes: coco, csv and jsonl (data.box_columns), cub, nabirds, "
            "dogs, cars"
        )
    return source


def _create(config: DataConfig, cache: Path, scoring: bool) -> Source:
    columns = {"image_column": config.image_column, "label_column": config.label_column}
    groups = {"group_column": config.group_column, "split_column": config.split_column}
    match config.source:
        case "folder":
            return FolderSource(config.path, classes=config.classes, scoring=scoring)
        case "csv" | "jsonl":
            return TextTableSource(
                config.path,
                config.source,
                given=Given(
                    config.image_column,
                    config.label_column,
                    config.split_column,
                    config.group_column,
                    tuple(config.box_columns or ()),
                    config.box_format,
                    tuple(config.point_columns or ()),
                    tuple(config.attribute_columns or ()),
                ),
                root=config.root,
                crop=config.crop == "box",
                scoring=scoring,
            )
        case "coco":
            return CocoSource(
                config.path, root=config.root, crop=config.crop == "box", scoring=scoring
            )
        case "cub":
            return CubSource(config.path)
        case "nabirds":
            return NABirdsSource(config.path)
        case "dogs":
            return DogsSource(config.path, crop=config.crop == "box")
        case "food101":
            return Food101Source(config.path, download=config.download)
        case "inaturalist":
            return INaturalistSource(config.path, scoring=scoring)
        case "fiftyone":
            return FiftyOneSource(config.path, scoring=scoring)
        case "arrow":
            return ArrowSource(config.path, **columns, **groups, scoring=scoring)
        case "webdataset":
            return WebDatasetSource(
                config.path, cache, config=config.config, **columns, scoring=scoring
            )
        case "parquet":
            return ParquetSource(
                config.path, cache, config=config.config, **columns, **groups, scoring=scoring
            )
        case "aircraft":
            return AircraftSource(config.path, download=config.download)
        case "flowers102":
            return FlowersSource(config.path, download=config.download)
        case "pets":
            return PetsSource(config.path, download=config.download)
        case "cars":
            return CarsSource(config.path, download=config.download)
        case "dtd":
            return DTDSource(config.path, download=config.download)
        case "gtsrb":
            return GTSRBSource(config.path, download=config.download)
        case "typefaces":
            return TypefacesSource(config.typefaces)
        case name:
            return added_source(name, SourceRequest(config.path, config, cache, scoring))


def count_classes(config: DataConfig) -> int | None:
    """Counts the classes of the data without reading images, if possible.

    Args:
        config: The section ``data``.

    Returns:
        The number; None if files are missing, or do not say it. Of a URL of Parquet files, the
        schema of one is read, which may take ten seconds (`remote_classes`).
    """
    try:
        name = detect_source(config.path) if config.source == "auto" else config.source
        if name in _CLASSES:
            return _CLASSES[name]
        if name == "folder":
            return len(FolderSource(config.path, classes=config.classes).classes) or None
        columns = Columns(config.image_column, config.label_column)
        if any("://" in path for path in _paths(config)):
            paths = tuple(_paths(config))
            return remote_classes(paths, config.config, columns) if name == "parquet" else None
        match name:
            case "csv" | "jsonl":
                known = config.model_copy(update={"source": name, "crop": "none"})
                return len(_create(known, Path(), False).classes) or None
            case "coco":
                found = find_descriptions(config.path, is_coco, "COCO")
                contents = [read_coco(each.file) for each in found]
                return len({a.category for each in contents for a in each.annotations}) or None
            case "arrow":
                return arrow_classes(config.path, columns)
            case "webdataset":
                return webdataset_classes(config.path, config.config)
            case "fiftyone":
                return fiftyone_classes(config.path)
            case "inaturalist":
                return inaturalist_classes(config.path)
            case "parquet":
                return parquet_classes(config.path, config.config, columns)
            case _ if name in plugins("source"):
                return len(create_source(config, cache_directory()).classes) or None
    except (UserError, OSError):
        return None  # `prepare` reports the error
    return None


def _paths(config: DataConfig) -> list[str]:
    return [config.path] if isinstance(config.path, str) else config.path or []


def _shown(config: DataConfig) -> str:
    paths = _paths(config)
    return paths[0] if len(paths) == 1 else f"data.path ({len(paths)} entries)"
