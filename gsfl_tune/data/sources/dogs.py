"""Stanford Dogs in its official layout."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._base import FileSource, Part, local_directory, some
from gsfl_tune.data.sources._lists import matrix
from gsfl_tune.experiment.errors import UserError

FOLDER = "stanford_dogs"
LISTS = ("train_list.mat", "test_list.mat")
WHAT = f"the folder that holds Images/ and {', '.join(LISTS)} (also in lists/)"
_HELP = (
    "Unpack images.tar and lists.tar of http://vision.stanford.edu/aditya86/ImageNetDogs/ there."
)


class DogsSource(FileSource):
    """Reads 120 breeds, with the official train and test parts.

    Boxes come from ``Annotation/`` if it exists. Class names lose their number
    (``n02085620-Chihuahua``) and underscores.

    Args:
        path: The folder, or the folder around ``stanford_dogs/``.
        crop: Whether each box is a sample; else each photograph is one.

    Raises:
        UserError: If a file is missing or cannot be read.
    """

    def __init__(self, path: str | list[str] | None, *, crop: bool = False) -> None:
        super().__init__()
        self._boxes = Path()
        root = local_directory(path, WHAT)
        if not (root / "Images").is_dir() and (root / FOLDER).is_dir():
            root = root / FOLDER
        lists = root / "lists" if (root / "lists").is_dir() else root
        missing = [
            str(file.relative_to(root))
            for file in (root / "Images", *(lists / name for name in LISTS))
            if not file.exists()
        ]
        if missing:
            raise UserError(
                f"data.path: {root} has no {', '.join(missing)}; it must name {WHAT}. {_HELP}"
            )
        parts: tuple[Part, Part] = ("train", "test")
        rows: list[tuple[str, int, Part]] = []
        for name, part in zip(LISTS, parts, strict=True):
            files, labels = matrix(lists / name, "file_list"), matrix(lists / name, "labels")
            if len(files) != len(labels):
                raise UserError(f"{lists / name}: {len(files)} files, but {len(labels)} labels")
            rows += [(str(f), int(n), part) for f, n in zip(files, labels, strict=True)]
        self._boxes = root / "Annotation"
        self._names: list[str] = []
        self._list(root / "Images", rows, crop and self._boxes.is_dir())

    def annotations(self) -> Annotations:
        """Returns boxes of photographs with one dog."""
        if any(sample.box for sample in self.samples) or not self._boxes.is_dir():
            return super().annotations()
        found = (boxes_of(self._boxes / Path(name).with_suffix("")) for name in self._names)
        return Annotations.of([boxes[0] if len(boxes) == 1 else None for boxes in found])

    def _list(self, images: Path, rows: list[tuple[str, int, Part]], crop: bool) -> None:
        folders: dict[int, str] = {}
        strangers: list[str] = []
        for name, number, _ in rows:
            folder = name.partition("/")[0]
            if folders.setdefault(number, folder) != folder:
                strangers.append(name)
        if strangers:
            self.problems.append(
                f"{images.parent}: {len(strangers)} images have the label of another folder: "
                f"{some(strangers, 3)}"
            )
        order = {number: label for label, number in enumerate(sorted(folders))}
        self.classes = [_plain(folders[number]) for number in order]
        for name, number, part in rows:
            file, label = images / name, order[number]
            if not crop:
                self._names.append(name)
                self.add(file, label, part)
                continue
            boxes = boxes_of(self._boxes / Path(name).with_suffix(""))
            if not boxes:
                self.left_out["without a box"] += 1
            for place, box in enumerate(boxes):
                shown = f"{file}#{place}" if len(boxes) > 1 else str(file)
                self.add(file, label, part, box=box, name=shown)


def boxes_of(file: Path) -> list[Box]:
    """Reads the boxes of a Pascal VOC file; empty without a file.

    Raises:
        UserError: If it is not such a file.
    """
    if not file.exists():
        return []
    try:
        root = ElementTree.parse(file).getroot()
        boxes = [each.find("bndbox") for each in root.iter("object")]
        corners = [
            [float(box.findtext(name) or "") for name in ("xmin", "ymin", "xmax", "ymax")]
            for box in boxes
            if box is not None
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UserError(f"{file}: cannot be read as XML with boxes: {error}") from error
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners if x1 > x0 and y1 > y0]


def _plain(folder: str) -> str:
    number, dash, rest = folder.partition("-")
    return (rest if dash and number[1:].isdigit() else folder).replace("_", " ")
