"""Recognises public data sets, and exports of programs, by their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gsfl_tune.data.sources.arrow import is_saved
from gsfl_tune.data.sources.fiftyone import is_export
from gsfl_tune.data.sources.inaturalist import MINI, SPECIES, TRAIN, VALIDATION


@dataclass(frozen=True)
class Layout:
    """Describes a data set with its own source.

    Attributes:
        source: Value of ``data.source``.
        text: Description of the folder, for messages.
        marks: Files and folders (or patterns) in its root or in the folder `inside`.
        inside: Folder name in its archive.
    """

    source: str
    text: str
    marks: tuple[str, ...]
    inside: str


LAYOUTS = (
    # Before CUB, which has a list with the same name.
    Layout("nabirds", "the layout of NABirds", ("images.txt", "hierarchy.txt"), "nabirds"),
    Layout(
        "cub",
        "the layout of CUB-200-2011",
        ("images.txt",),
        "CUB_200_2011",
    ),
    Layout(
        "aircraft",
        "the layout of FGVC-Aircraft",
        ("data/variants.txt", "data/images"),
        "fgvc-aircraft-2013b",
    ),
    Layout(
        "flowers102",
        "the layout of Oxford 102 Flowers",
        ("jpg", "imagelabels.mat", "setid.mat"),
        "flowers-102",
    ),
    Layout(
        "pets",
        "the layout of Oxford-IIIT Pet",
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        "oxford-iiit-pet",
    ),
    Layout(
        "cars",
        "the layout of Stanford Cars",
        ("devkit/cars_meta.mat", "cars_train"),
        "stanford_cars",
    ),
    Layout(
        "dogs", "the layout of Stanford Dogs", ("Images", "lists/train_list.mat"), "stanford_dogs"
    ),
    Layout("dogs", "the layout of Stanford Dogs", ("Images", "train_list.mat"), "stanford_dogs"),
    Layout(
        "food101",
        "the layout of Food-101",
        ("images", "meta/classes.txt", "meta/train.txt"),
        "food-101",
    ),
    *(
        Layout("inaturalist", "the layout of iNaturalist 2021", (f"{part}/{SPECIES}",), "")
        for part in (*TRAIN, *MINI, *VALIDATION, ".")
    ),
)


def known_layout(root: Path) -> Layout | None:
    """Returns the data set in a folder, or in its archive's folder there."""
    for layout in LAYOUTS:
        for place in (root, root / layout.inside):
            if all(_is_there(place, mark) for mark in layout.marks):
                return layout
    if is_saved(root):
        return Layout("arrow", "a dataset that the datasets library saved", (), "")
    if is_export(root):
        return Layout("fiftyone", "a dataset that FiftyOne exported", (), "")
    return None


def _is_there(place: Path, mark: str) -> bool:
    return any(place.glob(mark)) if "*" in mark else (place / mark).exists()
