"""Reads text and MATLAB lists of public data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._attributes import (
    numbered_lines,
    read_attributes,
    read_parts,
    text_of,
)
from gsfl_tune.data.sources._base import FileSource, local_directory, some
from gsfl_tune.data.sources._names import normal
from gsfl_tune.experiment.errors import UserError

BOXES = "bounding_boxes.txt"
LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


class ListedSource(FileSource):
    """Lists numbered images from files named as in CUB-200-2011 and NABirds.

    Optional files are ``bounding_boxes.txt`` for boxes, ``parts/parts.txt`` and
    ``parts/part_locs.txt`` for points, ``attributes.txt`` and
    ``attributes/image_attribute_labels.txt`` for attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path()
        # Number of each sample in the lists.
        self._numbers: list[str] = []

    def annotations(self) -> Annotations:
        """Reads boxes, points of parts and attributes from the files that exist.

        Raises:
            UserError: If a line of such a file cannot be read.
        """
        row = {number: place for place, number in enumerate(self._numbers)}
        parts, points = read_parts(self._folder, row)
        attributes, values = read_attributes(self._folder, row)
        return Annotations.of(
            [sample.box for sample in self.samples],
            points=points,
            part_names=parts,
            attributes=values,
            attribute_names=attributes,
        )

    def _root(
        self, path: str | list[str] | None, archive: str, files: Sequence[str], what: str
    ) -> Path:
        """Finds the folder of the lists: the named one, or the archive's folder inside.

        Raises:
            UserError: If there is none, or a file is missing.
        """
        root = local_directory(path, what)
        if not (root / LISTS[0]).exists() and (root / archive).is_dir():
            root = root / archive
        missing = [name for name in files if not (root / name).is_file()]
        if missing:
            raise UserError(f"data.path: {root} has no {', '.join(missing)}; it must name {what}")
        return root

    def _read_lists(self, root: Path) -> dict[str, str]:
        """Lists all images with labels and parts.

        Args:
            root: The folder with the lists and ``images/``.

        Returns:
            The classes by number, in the order of the labels.

        Raises:
            UserError: If a line of a file cannot be read.
        """
        self._folder = root
        images, labels, training, classes = (numbered_lines(root / name) for name in LISTS)
        boxes = _boxes(root / BOXES)
        order = {number: label for label, number in enumerate(classes)}
        for problem, ids in (
            ("has no line in image_class_labels.txt", [i for i in images if i not in labels]),
            ("has no line in train_test_split.txt", [i for i in images if i not in training]),
            (
                "has a label outside classes.txt",
                [i for i in images if i in labels and labels[i] not in order],
            ),
            (f"has no line in {BOXES}", [i for i in images if boxes and i not in boxes]),
            (
                "is neither 0 nor 1 in train_test_split.txt",
                [i for i in images if training.get(i, "0") not in ("0", "1")],
            ),
        ):
            if ids:
                self.problems.append(f"{root}: {len(ids)} image(s): each {problem}: id {some(ids)}")
        for number, name in images.items():
            label = order.get(labels.get(number, ""))
            part = {"1": "train", "0": "test"}.get(training.get(number, ""))
            if label is not None and part is not None:
                self._numbers.append(number)
                self.add(
                    root / "images" / name,
                    label,
                    "train" if part == "train" else "test",
                    box=boxes.get(number),
                )
        return classes


def _boxes(file: Path) -> dict[str, Box]:
    """Returns boxes by image number, of lines ``number x y width height``; empty without a file."""
    if not file.exists():
        return {}
    boxes: dict[str, Box] = {}
    for number, text in numbered_lines(file).items():
        try:
            x, y, width, height = map(float, text.split())
        except ValueError:
            raise UserError(
                f"{file}: image {number}: found {text!r}, allowed x, y, width and height"
            ) from None
        boxes[number] = (x, y, x + width, y + height)
    return boxes


def text_lines(file: Path) -> list[str]:
    """Returns the lines of a file that are not empty, in the composed form (NFC).

    Raises:
        UserError: If it is not UTF-8, or cannot be read.
    """
    text = normal(text_of(file))
    return [line for line in text.splitlines() if line.strip()]


def matrix(file: Path, key: str) -> Any:
    """Reads a vector of a MATLAB file as a NumPy array.

    Raises:
        UserError: If it is not such a file or lacks the vector.
    """
    import numpy as np
    from scipy.io import loadmat

    try:
        return np.atleast_1d(loadmat(file, squeeze_me=True)[key])
    except Exception as error:
        raise UserError(f"{file}: cannot be read as a MATLAB file with {key!r}: {error}") from error
