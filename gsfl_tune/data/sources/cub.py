"""CUB-200-2011 in its official layout."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.data.single import Box
from gsfl_tune.data.sources._base import FileSource, local_directory, some
from gsfl_tune.experiment.errors import UserError

BOXES = "bounding_boxes.txt"
FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
WHAT = f"the folder CUB_200_2011, which holds {', '.join(FILES)} and images/"


class CubSource(FileSource):
    """The four lists and the folder ``images/`` as they come out of the official archive.

    Boxes come from ``bounding_boxes.txt`` where it is there. Class names lose the number in front
    (``001.Black_footed_Albatross``) and their underscores.

    Args:
        path: The folder, or the folder that the archive was unpacked in.

    Raises:
        UserError: If a file is missing or a line of one cannot be read.
    """

    def __init__(self, path: str | list[str] | None) -> None:
        super().__init__()
        root = local_directory(path, WHAT)
        if not (root / FILES[0]).exists() and (root / "CUB_200_2011").is_dir():
            root = root / "CUB_200_2011"
        missing = [name for name in FILES if not (root / name).is_file()]
        if missing:
            raise UserError(f"data.path: {root} has no {', '.join(missing)}; it must name {WHAT}")
        images, labels, training, classes = (_table(root / name) for name in FILES)
        boxes = _boxes(root / BOXES)
        order = {number: label for label, number in enumerate(classes)}
        self.classes = [_plain(name) for name in classes.values()]
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
                self.add(
                    root / "images" / name,
                    label,
                    "train" if part == "train" else "test",
                    box=boxes.get(number),
                )
        self.drop_empty_classes()


def _table(file: Path) -> dict[str, str]:
    """Lines of ``number text``, by number."""
    rows: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not value or key in rows:
            reason = "appears twice" if key in rows else "expected a number and a value"
            raise UserError(f"{file}:{number}: {line.strip()!r}: {reason}")
        rows[key] = value.strip()
    return rows


def _boxes(file: Path) -> dict[str, Box]:
    """Boxes by the number of the image, of lines ``number x y width height``; none without file."""
    if not file.exists():
        return {}
    boxes: dict[str, Box] = {}
    for number, text in _table(file).items():
        try:
            x, y, width, height = map(float, text.split())
        except ValueError:
            raise UserError(
                f"{file}: image {number}: found {text!r}, allowed x, y, width and height"
            ) from None
        boxes[number] = (x, y, x + width, y + height)
    return boxes


def _plain(name: str) -> str:
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdigit() else name).replace("_", " ")
