"""Stanford Dogs in its official layout."""

from __future__ import annotations

from pathlib import Path

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
    """120 breeds, with the official train and test parts.

    Class names lose the number in front (``n02085620-Chihuahua``) and their underscores.

    Args:
        path: The folder, or the one that holds it as ``stanford_dogs/``.

    Raises:
        UserError: If a file is missing or cannot be read.
    """

    def __init__(self, path: str | list[str] | None) -> None:
        super().__init__()
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
        self._list(root / "Images", rows)

    def _list(self, images: Path, rows: list[tuple[str, int, Part]]) -> None:
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
            self.add(images / name, order[number], part)


def _plain(folder: str) -> str:
    number, dash, rest = folder.partition("-")
    return (rest if dash and number[1:].isdigit() else folder).replace("_", " ")
