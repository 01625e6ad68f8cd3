"""What ``gsfl-tune check`` says of the images: their listing is enough, PyTorch is not needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import showing

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment


def learns_parts(experiment: Experiment) -> bool:
    """Returns whether a trial of a space may learn to find parts."""
    from gsfl_tune.experiment.methods import PART_METHODS

    return bool(set(PART_METHODS) & set(experiment.values("training.method")))


@dataclass(frozen=True)
class Described:
    """Holds what a listing tells of the data.

    Attributes:
        told: Lines about it.
        images: Number of images; None where nothing was listed.
        classes: Number of classes, as `gsfl_tune.data.sources.count_classes` counts them; None
            where nothing was listed.
    """

    told: list[str] = field(default_factory=list)
    images: int | None = None
    classes: int | None = None


def describe_data(experiment: Experiment) -> Described:
    """Describes the data and counts the images, as far as a listing tells.

    Remote images are not read.

    Raises:
        ExperimentError: If a method learns parts and no image shows one.
        UserError: If the images cannot be divided, or a file of annotations cannot be read.
    """
    from collections import Counter

    from gsfl_tune.data import cache_directory
    from gsfl_tune.data.apart import told_by_listing
    from gsfl_tune.data.exclude import leave_out
    from gsfl_tune.data.held_out import told_before
    from gsfl_tune.data.preparation import settle_validation
    from gsfl_tune.data.sources import create_source
    from gsfl_tune.data.synthetic import read_manifest, synthetic_folders
    from gsfl_tune.data.together import mark_sets
    from gsfl_tune.experiment import UserError

    config = experiment.defaults().data
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    if config.source == "typefaces" or config.download or any("://" in path for path in paths):
        return Described()
    try:
        with showing("listing the images", short=True):
            listed = create_source(config, cache_directory())
            classes = len(listed.classes)
            source = leave_out(listed, config)
            mark_sets(source, config)
            synthetic = sum(map(len, map(read_manifest, synthetic_folders(config))))
    except UserError as error:
        return Described([f"Warning: {line}" for line in str(error).splitlines()])
    if learns_parts(experiment):
        from gsfl_tune.training.parts import refuse_without_parts

        refuse_without_parts(experiment, source)
    parts = Counter(sample.part for sample in source.samples)
    told = [f"{part} {parts[part]:,}" for part in ("train", "validation", "test") if parts[part]]
    counts = f" ({', '.join(told)})" if told else ""
    settle_validation(source, config.split)
    measured = told_before(source, config.split, cache_directory())
    if measured is None:
        # Groups are in the list; copies, and how near parts are, need the images.
        measured = told_by_listing(source.samples, config.split)
        if config.split.by == "auto":
            measured.append(
                "`gsfl-tune data` and the search measure how near validation images are to "
                "training images (data.split.by: auto)"
            )
    lines = [
        f"Data: {len(source.classes)} classes, {len(source.samples):,} images{counts}",
        *(f"Data: {notice}" for notice in source.told()),
        *(f"Data: {notice}" for notice in measured),
        *(f"Warning: {problem}" for problem in source.problems),
    ]
    if synthetic:
        lines.append(f"Data: data.synthetic: {synthetic:,} images for the training part")
    return Described(lines, len(source.samples) + synthetic, classes)
