"""Table of a bundle's features and their parts for images."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.data import Dataset, cache_directory
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.named_images import NamedImages, NotFound
from gsfl_tune.data.sources import Source, create_source, detect_source
from gsfl_tune.data.sources._names import as_utf8
from gsfl_tune.data.sources._walk import why_left_out
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, ImageError, LazyImage
from gsfl_tune.export.engine import Engine
from gsfl_tune.export.quicken import quickened
from gsfl_tune.export.shared import network_with_shared
from gsfl_tune.models import GsflHead, Network
from gsfl_tune.run import whole_file

_BATCH = 32
# Largest size of a row group, before compression.
_GROUP_BYTES = 32 << 20
_COLUMNS = {"f": "feature", "d": "discriminative part", "s": "shared part"}
UNBOXED = (
    "the bundle was trained on boxes cut out of images; these have none, and their features are "
    "those of whole images"
)


@dataclass(frozen=True)
class Named:
    """Holds the path, label and part of an image in the table.

    Attributes:
        path: The image.
        label: Its class; None if unknown.
        part: Train, validation or test; None if it has none.
    """

    path: str
    label: str | None = None
    part: str | None = None


Batches = Iterator[tuple[list[Named], np.ndarray]]
OnError = Callable[[ImageError], None]


@dataclass
class Images:
    """Holds images to embed, in batches.

    Attributes:
        batches: Names and (B, side, side, 3) uint8 squares.
        total: Number of images; None if unknown.
        notices: Important facts about them.
    """

    batches: Batches
    total: int | None
    notices: list[str]


@dataclass(frozen=True)
class Embedded:
    """Describes the written table.

    Attributes:
        rows: Number of images.
        sizes: Length of each column's lists, by name: ``f``, ``d``, ``s``.
    """

    rows: int
    sizes: dict[str, int]


def images_of_dataset(dataset: Dataset) -> Images:
    """Returns all images of an experiment, with its split.

    Args:
        dataset: Decoded to the bundle's side.
    """
    validation = set(dataset.validation_index.tolist())

    def batches() -> Batches:
        for images, is_test in ((dataset.pool, False), (dataset.test, True)):
            for start in range(0, len(images), _BATCH):
                index = np.arange(start, min(start + _BATCH, len(images)))
                parts = [
                    "test" if is_test else "validation" if at in validation else "train"
                    for at in index.tolist()
                ]
                names = [
                    Named(images.paths[at], dataset.classes[images.labels[at]], part)
                    for at, part in zip(index.tolist(), parts, strict=True)
                ]
                yield names, images.gather(index)

    return Images(batches(), len(dataset.pool) + len(dataset.test), dataset.notices)


def images_at(bundle: Bundle, path: str, on_error: OnError) -> Images:
    """Returns all images at a path: of a data set with labels and parts, else of a folder.

    For a bundle that was trained on boxes, each box of the data set is an image.

    Args:
        bundle: Defines how images are read.
        path: A data set as for `gsfl_tune.data`, or a folder or pattern of images.
        on_error: Called with the error of an image that cannot be read.

    Raises:
        UserError: If there is no image.
    """
    trained = bundle.config.get("data", {})
    margin = trained["crop_margin"] if trained.get("crop") == "box" else None
    try:
        crop: Literal["none", "box"] = "none" if margin is None else "box"
        config = DataConfig(source=detect_source(path), path=path, crop=crop)
        source = create_source(config, cache_directory(), scoring=True)
        if not source.samples:
            raise UserError("\n".join([*source.told(), *source.problems]))
    except UserError as error:
        # True for a folder or for images without classes, but not for a damaged table.
        loose = os.path.isdir(path) or glob.has_magic(path) or why_left_out(Path(path)) is None
        if not loose:
            raise
        images = _unlabelled(bundle, path, on_error, str(error))
        boxed = False
    else:
        images = _labelled(bundle, source, on_error, margin)
        boxed = any(sample.box for sample in source.samples)
    if margin is not None and not boxed:
        images.notices.append(UNBOXED)
    return images


def _labelled(bundle: Bundle, source: Source, on_error: OnError, margin: float | None) -> Images:
    """Returns the images of a data set, and their boxes where a margin for them is given."""
    known = {
        sample.path: Named(sample.path, source.classes[sample.label], sample.part)
        for sample in source.samples
    }
    how = replace(bundle.preprocessing.reading, cut_bottom=source.cut_bottom)

    def images() -> Iterator[LazyImage]:
        for position, read in source.readers(range(len(source.samples))):
            sample = source.samples[position]
            box = None if margin is None else sample.box
            yield LazyImage(sample.path, read, box, margin or 0.0)

    def batches() -> Batches:
        for names, squares in bundle.squares(
            images(), batch_size=_BATCH, on_error=on_error, reading=how
        ):
            yield [known[name] for name in names], squares

    notices = [*source.told(), *source.problems]
    if source.unlabelled():
        notices.append(
            f"{source.unlabelled():,} images have no label and so no row; a folder or pattern of "
            "images gives each of them one"
        )
    return Images(batches(), len(source.samples), notices)


def _unlabelled(bundle: Bundle, path: str, on_error: OnError, why: str) -> Images:
    named = NamedImages([path], any_name=True)
    found = [item for item in named if not isinstance(item, NotFound)]
    if not found:
        told = [line for line in named.told() if line not in why.splitlines()]
        raise UserError("\n".join([*told, why]))

    def batches() -> Batches:
        for names, squares in bundle.squares(found, batch_size=_BATCH, on_error=on_error):
            yield [Named(as_utf8(name)) for name in names], squares

    lines = [f"no labels, because this is not a data set: {why.splitlines()[-1]}", *named.told()]
    return Images(batches(), len(found), lines)


def embed(bundle: Bundle, images: Images, target: Path, engine: Engine | None = None) -> Embedded:
    """Writes a Parquet file with one row per image.

    Its columns are ``path``, ``part``, ``label``, ``prediction``, ``probability``, ``f`` (the unit
    feature, D numbers), ``d`` (the discriminative part, H numbers) and, for a bundle exported with
    the shared branch, ``s`` (the shared part, H numbers). ``f``, ``d`` and ``s`` are lists of
    float32 of fixed size.

    Args:
        bundle: A bundle with one PyTorch network.
        images: The images.
        target: The file; it appears when it is complete.
        engine: Who computes on a CPU; default: whoever is faster.

    Raises:
        BundleError: If the bundle has no PyTorch network, or several.
        UserError: If its shared branch does not fit, no image can be read, or the file cannot be
            written.
    """
    network = _network(bundle)
    sizes = {"f": network.head.feature_dim, "d": network.head.latent_dim}
    if isinstance(network.head, GsflHead):
        sizes["s"] = network.head.latent_dim
    size = bundle.preprocessing.image_size
    group = max(_BATCH, _GROUP_BYTES // (4 * sum(sizes.values())))
    rows = 0
    try:
        with (
            whole_file(target) as file,
            pq.ParquetWriter(file, _schema(bundle, sizes)) as writer,
            quickened([network], size, images.total, bundle.device, engine=engine),
        ):
            waiting: list[pa.RecordBatch] = []
            with activity("embedding", images.total, "images") as progress:
                for names, squares in _read(images.batches):
                    waiting.append(_rows(bundle, network, names, squares, writer.schema))
                    rows += len(names)
                    progress.done = rows
                    if sum(map(len, waiting)) >= group:
                        writer.write_table(pa.Table.from_batches(waiting))
                        waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
            if not rows:
                # The reasons were told one by one.
                some = "no image" if images.total is None else f"none of {images.total:,} images"
                raise UserError(f"{some} can be read")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return Embedded(rows, sizes)


def _read(batches: Batches) -> Batches:
    """Yields the batches; a disk that fails here has nothing to do with the table."""
    try:
        yield from batches
    except OSError as error:
        raise UserError(f"the images cannot be read ({error})") from error


def _network(bundle: Bundle) -> Network:
    network = bundle.network
    if not bundle.has_shared:
        return network
    try:
        return network_with_shared(bundle, bundle.shared_state())
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{bundle.path}: the shared branch does not fit ({error})") from error


def _schema(bundle: Bundle, sizes: dict[str, int]) -> pa.Schema:
    texts = [(name, pa.string()) for name in ("path", "part", "label", "prediction")]
    lists = [(name, pa.list_(pa.float32(), size)) for name, size in sizes.items()]
    about = {"bundle": str(bundle.path), "classes": bundle.classes, "columns": _COLUMNS}
    return pa.schema(
        [*texts, ("probability", pa.float64()), *lists],
        metadata={"gsfl_tune": json.dumps(about, ensure_ascii=False)},
    )


def _rows(
    bundle: Bundle,
    network: Network,
    names: Sequence[Named],
    squares: np.ndarray,
    schema: pa.Schema,
) -> pa.RecordBatch:
    how = bundle.preprocessing
    pixels = torch.from_numpy(squares).to(bundle.device)
    with torch.inference_mode():
        images = center_crop(pixels, how.image_size, how.mean, how.std)
        f = network.features(images.contiguous(memory_format=torch.channels_last))
        output = network.head(f.to(network.head.classifier.weight.dtype))
        f, _ = network.head.divided(f)
    best = output.logits.cpu().double().softmax(dim=1).max(dim=1)
    found: dict[str, Tensor | None] = {"f": f, "d": output.discriminative, "s": output.shared}
    columns: dict[str, Any] = {
        "path": [name.path for name in names],
        "part": [name.part for name in names],
        "label": [name.label for name in names],
        "prediction": [bundle.classes[index] for index in best.indices.tolist()],
        "probability": best.values.numpy(),
    }
    for name, values in found.items():
        if name in schema.names and values is not None:
            flat = values.float().cpu().numpy().reshape(-1)
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.RecordBatch.from_pydict(columns, schema=schema)
