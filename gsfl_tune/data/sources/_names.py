"""Reads parts from names of files and folders, and recognises files that are not data."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

Part = Literal["train", "validation", "test"]

# The words for splits in the `datasets` library, and `trainval` of VOC and Pets.
PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
# `trainset`, `testdata`: a part and its content.
HELD = r"(?:sets?|data|dataset|images?|imgs?|split|part|files?|folder)?"
_WORD = re.compile(rf"({'|'.join(sorted(PART_NAMES, key=len, reverse=True))}){HELD}")
# Begins or ends like such a word, but is not one: `traintest`, `mytrain`.
_LIKE = re.compile(
    r"(?:train|valid|test)(?:train|valid|test|val|dev)\w*|(?:my|new|old|un|no|the)(?:train|test|val)"
)
_SEPARATORS = re.compile(r"[-._ \d()\[\]]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

# Folders that programs and network storage create beside images.
JUNK_FOLDERS = frozenset(
    [
        "@eadir", "#recycle", "@recycle", "@recently-snapshot", "$recycle.bin", "lost+found",
        "system volume information", "__macosx", "__pycache__", "thumbnails", "@__thumb", "@tmp",
        "#snapshot", "~snapshot",
    ]
)  # fmt: skip
JUNK_FILES = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"])
# Folder names for kinds of files, which are not classes.
STRUCTURE = frozenset(
    [
        "annotation", "annotations", "ann", "anns", "bbox", "bboxes", "boxes", "color", "colour",
        "crops", "data", "dataset", "depth", "edges", "full", "gray", "grayscale", "grey",
        "greyscale", "ground_truth", "groundtruth", "gt", "image", "images", "img", "imgs", "jpeg",
        "jpegimages", "jpg", "label", "labels", "lists", "mask", "masks", "meta", "metadata",
        "originals", "original", "parts", "png", "raw", "rgb", "seg", "segmentation",
        "segmentations", "segmented", "thumbs", "trimap", "trimaps", "upload", "uploads",
        "xml", "xmls",
    ]
)  # fmt: skip
# Those of them that hold no photographs: beside the images of a class they are no finer classes.
MASKS = frozenset(
    [
        "annotation", "annotations", "ann", "anns", "bbox", "bboxes", "boxes", "depth", "edges",
        "ground_truth", "groundtruth", "gt", "label", "labels", "mask", "masks", "seg",
        "segmentation", "segmentations", "segmented", "thumb", "thumbnail", "thumbs", "trimap",
        "trimaps",
    ]
)  # fmt: skip
_IMAGES = frozenset(["image", "images", "img", "imgs", "photo", "photos", "pictures"])


# Reason of `Source.left_out`, of names from archives of old systems for one.
NOT_UTF8 = "names that are not UTF-8"


class AmbiguousName(ValueError):
    """Raised for a name that contains a word for a part but is ambiguous."""


def part_of_name(name: str) -> Part | None:
    """Returns the part in a name, by the rules of the `datasets` library; None if there is none.

    Words are between separators (``-._ ``, digits, brackets) or begin with a capital. A word for
    the content may follow: ``birds_train``, ``partial-train``, ``trainset``, ``TestImages``.

    Args:
        name: Name of a file, without its suffix, or of a folder.

    Raises:
        AmbiguousName: If it has two parts (``train_test``), or such a word but no clear part.
    """
    lower = words_of(name)
    found = []
    for word in lower:
        match = _WORD.fullmatch(word)
        if match:
            found.append(PART_NAMES[match.group(1)])
        elif _LIKE.fullmatch(word):
            raise AmbiguousName(name)
    if lower[:2] == ["train", "val"] and len(set(found)) == 2:
        return "train"
    if len(set(found)) > 1:
        raise AmbiguousName(name)
    return found[0] if found else None


def words_of(name: str) -> list[str]:
    """Returns the words of a name in lower case, see `part_of_name`."""
    return [word.lower() for word in _SEPARATORS.split(_CAMEL.sub(" ", name)) if word]


def are_shards(names: Iterable[str]) -> bool:
    """Returns whether folders hold pieces of one set of images: ``images_001``, ``images_002``.

    Their names differ in numbers alone and say that they hold images. Names of classes may differ
    in numbers too (``part_1``).
    """
    every = list(names)
    stems = {re.sub(r"\d+", "0", name.lower()) for name in every}
    return len(every) > 1 and len(stems) == 1 and not _IMAGES.isdisjoint(words_of(every[0]))


def is_structure(name: str) -> bool:
    """Returns whether a folder's name looks like a kind of file or a part, not like a class."""
    lower = name.lower()
    if lower in STRUCTURE or lower.replace("-", "_") in STRUCTURE:
        return True
    try:
        return part_of_name(name) is not None
    except AmbiguousName:
        return True


def normal(name: str) -> str:
    """Returns the composed form (NFC) of a name, as archives of macOS have decomposed names."""
    return unicodedata.normalize("NFC", name)


def spelt(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns names as a list spells them, where they differ only in composed and decomposed form.

    Args:
        names: Names that may be in the list.
        known: The list, classes for one.
    """
    exact = set(known)
    others = {normal(name): name for name in known}
    return [name if name in exact else others.get(normal(name), name) for name in names]


def is_utf8(name: str) -> bool:
    """Returns whether a name of a file can be written into caches, tables and pages."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_utf8(name: str) -> str:
    """Returns a name of a file with U+FFFD in place of what is not UTF-8, to be written."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def some(names: Sequence[str], limit: int = 10) -> str:
    """Joins at most ``limit`` names and the number of further ones."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(reasons: Iterable[tuple[str, int]], kind: str) -> str:
    """Returns counts such as ``12 files: .txt 10, in @eaDir/ 2``; the most frequent first."""
    ordered = sorted(reasons, key=lambda pair: (-pair[1], pair[0]))
    total = sum(count for _, count in ordered)
    kinds = some([f"{reason} {count:,}" for reason, count in ordered])
    return f"{total:,} {kind}{'s' if total != 1 else ''}: {kinds}"
