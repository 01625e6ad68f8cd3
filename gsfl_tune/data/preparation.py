"""Prepares the images of a configuration: lists, checks, divides and decodes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data.dataset import Dataset
from gsfl_tune.data.decoded import Geometry, Progress
from gsfl_tune.data.digests import Contents, read_contents
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.exclude import leave_out
from gsfl_tune.data.image_file import Reading, natural_range, square_side
from gsfl_tune.data.parts import divide_source, listing_problems, source_problems
from gsfl_tune.data.sources import Source, create_source
from gsfl_tune.data.synthetic import with_synthetic, without_marked
from gsfl_tune.data.together import mark_sets
from gsfl_tune.experiment.data_config import DataConfig, SplitConfig
from gsfl_tune.experiment.errors import UserError


@activity("preparing the images")
def prepare(
    config: DataConfig,
    *,
    side: int | None = None,
    cache_dir: Path | None = None,
    parts: Sequence[str] = ("pool", "test"),
    progress: Progress | None = None,
    reading: Reading | None = None,
    source: Source | None = None,
) -> Dataset:
    """Lists, hashes, divides, checks and decodes the images of a configuration.

    Decoded images are cached on the node. If several processes start together, one of them decodes.

    Args:
        config: The section ``data``.
        side: Side of the decoded squares in pixels; default `square_side` of the larger image size.
        cache_dir: Root of the caches; default `cache_directory`.
        parts: Parts to decode now, of ``pool`` (training and validation) and ``test``; others are
            decoded at their first use.
        progress: Called from time to time with (images done, all images) while decoding.
        reading: Settings of a bundle for values of pixels; default: those of the configuration.
        source: What `list_images` has listed for this configuration; default: it is listed here.

    Raises:
        UserError: With all problems of the data.
    """
    cache = Path(cache_dir).absolute() if cache_dir is not None else cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with activity("listing the images"):
            source = source or list_images(config, cache)
            settle_validation(source, config.split)
            mark_sets(source, config)
            contents = read_contents(source, cache)
            source, contents = without_marked(source, contents)
            source, contents = with_synthetic(source, contents, config, cache)
    except OSError as error:
        raise disk_error(error, cache) from error
    # Before anything is decoded, assuming that no image is broken.
    split = divide_source(source, contents.digests, config.split, source.originals)
    problems = [*listing_problems(source), *source_problems(source, split, shots=config.shots)]
    if problems:
        # First the images left out, as these may explain what is missing.
        raise UserError("\n".join([*source.told(), *problems]))
    if reading is None:
        reading = _reading(source, contents, config)
    else:
        reading = reading_of(reading, config, source)
    margin = config.crop_margin if config.crop == "box" else None
    geometry = Geometry(side or square_side(config.largest_image_size), config.fit, reading, margin)
    dataset = Dataset(source, contents.digests, geometry, config, cache, progress)
    for part in parts:
        if part not in ("pool", "test"):
            raise ValueError(f"parts may name pool and test, not {part!r}")
        getattr(dataset, part)
    return dataset


def list_images(config: DataConfig, cache: Path) -> Source:
    """Lists the images of a configuration but those of ``data.exclude``.

    Raises:
        UserError: If they cannot be listed.
    """
    return leave_out(create_source(config, cache), config)


def reading_of(reading: Reading, config: DataConfig, source: Source) -> Reading:
    """Returns the settings of a bundle for values of pixels, for the images of a configuration.

    What is read is up to the configuration, and not which values: that is up to the images.

    Args:
        reading: Settings of the bundle.
        config: The section ``data``.
        source: Its images.
    """
    return dataclasses.replace(
        reading,
        max_pixels=config.max_pixels,
        truncated=config.truncated == "accept",
        cut_bottom=source.cut_bottom,
    )


def _reading(source: Source, contents: Contents, config: DataConfig) -> Reading:
    """Returns the settings for reading; one range, not from test images, for all deep grey images.

    If the configuration gives no range and some images do not define white, the range follows from
    their smallest and largest values, with a notice.
    """
    given = None if config.value_range is None else (config.value_range[0], config.value_range[1])
    deep, found = contents.extremes, None
    if given is None and deep:
        seen = [deep[i] for i in deep if source.samples[i].part != "test"] or list(deep.values())
        low, high = min(low for low, _ in seen), max(high for _, high in seen)
        found = natural_range(low, high)
        source.notices.append(
            f"{len(deep):,} grey image{'s' if len(deep) > 1 else ''} of 32 bits or floats, values "
            f"{low:.6g} to {high:.6g}: read from {found[0]:.6g} (black) to {found[1]:.6g} (white); "
            "data.value_range sets both"
        )
    return Reading(
        value_range=given,
        float_range=found,
        max_pixels=config.max_pixels,
        truncated=config.truncated == "accept",
        cut_bottom=source.cut_bottom,
    )


def settle_validation(source: Source, config: SplitConfig) -> None:
    """Treats a given validation part as ``data.split.validation`` says."""
    given = sum(sample.part == "validation" for sample in source.samples)
    if config.validation == "given" and not given and source.samples:
        source.problems.append(
            "data.split.validation: found given, but the source has no validation part; allowed: a "
            "share such as 0.2"
        )
    elif config.validation == "resplit" and given:
        source.notices.append(
            f"the given validation part ({given:,} images) joins the training images, and another "
            "one is held out"
        )
        source.samples = [
            dataclasses.replace(each, part="train") if each.part == "validation" else each
            for each in source.samples
        ]
