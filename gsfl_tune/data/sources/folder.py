"""A folder with one folder of images for each class, with or without split folders."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.data.sources._base import (
    IMAGE_SUFFIXES,
    PART_NAMES,
    FileSource,
    Part,
    local_directory,
    some,
)

WHAT = "a folder with one folder of images for each class"


class FolderSource(FileSource):
    """``ROOT/CLASS/**/image`` or ``ROOT/{train,val|valid|validation,test}/CLASS/**/image``.

    There are split folders when ``train/`` exists and has folders in it. Files that do not
    have the suffix of an image format, and everything hidden, are ignored.

    Args:
        path: The root.

    Raises:
        UserError: If the root does not exist or holds no class.
    """

    def __init__(self, path: str | list[str] | None) -> None:
        super().__init__()
        root = local_directory(path, WHAT)
        inside = _folders(root)
        parts: dict[Path, Part | None] = {root: None}
        split = [folder for folder in inside if folder.name.lower() in PART_NAMES]
        if any(PART_NAMES[folder.name.lower()] == "train" and _folders(folder) for folder in split):
            strangers = [folder.name for folder in inside if folder not in split]
            if strangers:
                self.problems.append(
                    f"{root}: folders beside train/ that are neither val/ nor test/: "
                    f"{some(strangers)}"
                )
            parts = {folder: PART_NAMES[folder.name.lower()] for folder in split}
        elif split and len(split) == len(inside):
            self.problems.append(f"{root}: split folders, but no train/ with class folders in it")
        self._list(parts)
        if not self.classes:
            self.problems.append(f"{root}: no class folders; expected {WHAT}")

    def _list(self, parts: dict[Path, Part | None]) -> None:
        names: dict[Path, list[str]] = {
            folder: [child.name for child in _folders(folder)] for folder in parts
        }
        training = [folder for folder, part in parts.items() if part in (None, "train")]
        self.classes = sorted({name for folder in training for name in names[folder]})
        label = {name: number for number, name in enumerate(self.classes)}
        for folder in sorted(parts):
            unknown = [name for name in names[folder] if name not in label]
            if unknown:
                self.problems.append(
                    f"{folder}: classes that train/ does not have: {some(unknown)}"
                )
            for name in names[folder]:
                if name in label:
                    for file in _images(folder / name):
                        self.add(file, label[name], parts[folder])


def _folders(path: Path) -> list[Path]:
    return sorted(
        child
        for child in path.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__"))
    )


def _images(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not any(piece.startswith(".") for piece in file.relative_to(path).parts)
        and file.is_file()
    )
