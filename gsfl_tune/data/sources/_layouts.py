"""Knows public data sets by the files in which they come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """A data set that has a source of its own.

    Attributes:
        source: Its ``data.source``.
        text: What the folder is, for messages.
        marks: Files and folders that it has, in the root or in the folder `inside`.
        inside: The folder that its archive is unpacked into.
    """

    source: str
    text: str
    marks: tuple[str, ...]
    inside: str


LAYOUTS = (
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
)


def known_layout(root: Path) -> Layout | None:
    """The data set whose files lie in a folder, or in the folder of its archive there."""
    for layout in LAYOUTS:
        for place in (root, root / layout.inside):
            if all((place / mark).exists() for mark in layout.marks):
                return layout
    return None
