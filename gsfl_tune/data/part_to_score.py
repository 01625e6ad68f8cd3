"""Opens the test part of an experiment for an evaluation.

Other images are read only to tell whether a bundle was trained on them: where there are as many
images in all as in its run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data.decoded import Geometry
from gsfl_tune.data.decoded_files import DecodedFiles
from gsfl_tune.data.digests import read_contents
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.image_file import Reading
from gsfl_tune.data.labelled_images import Drawn, LabelledImages, labelled, unlabelled_told
from gsfl_tune.data.naming import name_of
from gsfl_tune.data.parts import listing_problems
from gsfl_tune.data.preparation import list_images, prepare, reading_of
from gsfl_tune.data.sources import Source
from gsfl_tune.data.splits import missing_classes
from gsfl_tune.data.synthetic import without_marked
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError


def open_test_part(
    config: DataConfig, side: int, reading: Reading, cache_dir: Path | None = None
) -> LabelledImages:
    """Opens the test part of an experiment.

    A test part of the source is read alone. One that is chosen here depends on all images.

    Args:
        config: The section ``data``, with ``crop`` and ``fit`` as the bundle was trained.
        side: Side of the decoded squares in pixels.
        reading: Settings of the bundle for values of pixels.
        cache_dir: Root of the node's caches.

    Raises:
        UserError: With all problems of the data.
    """
    cache = cache_dir or cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with activity("listing the images"):
            source = list_images(config, cache)
        if any(sample.part == "test" for sample in source.samples):
            return _given(source, config, side, reading, cache)
    except OSError as error:
        raise disk_error(error, cache) from error
    dataset = prepare(
        config, side=side, cache_dir=cache, parts=("test",), reading=reading, source=source
    )
    drawn = dataset.trained_on(validation=True)
    return LabelledImages(
        dataset.test,
        dataset.classes,
        "test",
        dataset.broken_test,
        [*dataset.notices, *unlabelled_told(dataset.unlabelled_test, len(dataset.test))],
        dataset.unlabelled_test,
        drawn_from=Drawn(drawn["test"], lambda: drawn["images"], drawn["count"]),
    )


def _given(
    source: Source, config: DataConfig, side: int, reading: Reading, cache: Path
) -> LabelledImages:
    """Opens the test part of a source, in the same file of the cache as a search does."""
    problems = listing_problems(source)
    if problems:
        raise UserError("\n".join([*source.told(), *problems]))
    tested = [at for at, sample in enumerate(source.samples) if sample.part == "test"]
    contents = read_contents(source, cache, tested)
    without_marked(source, contents)  # refuses them in a given part
    margin = config.crop_margin if config.crop == "box" else None
    geometry = Geometry(side, config.fit, reading_of(reading, config, source), margin)
    identities = geometry.identities(source, contents.digests)
    name = name_of(config)
    files = DecodedFiles(source, identities, geometry, cache, config.max_broken, name, None)
    file, _ = files.open(separate_test=True)
    found = labelled(source, tested, contents, file, geometry, cache, "test")
    labels = found.images.labels
    missing = missing_classes(source.classes, "test", labels, given=True)
    return replace(found, notices=[*found.notices, *([missing] if missing else [])])
