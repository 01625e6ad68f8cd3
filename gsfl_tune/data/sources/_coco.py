"""Reads one JSON file in the layout of COCO: images, annotations, categories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._names import normal, some
from gsfl_tune.experiment.errors import UserError

Key = int | str


@dataclass(frozen=True, slots=True)
class Annotation:
    """Holds an annotation of an image.

    Attributes:
        number: Its id, for messages.
        image: Id of the image.
        category: Id of the class.
        box: (x0, y0, x1, y1) in pixels; None without a box.
        crowd: Whether the box surrounds many objects.
        points: (x, y) of each part that is labelled, by the part's name.
    """

    number: Key
    image: Key
    category: Key
    box: Box | None
    crowd: bool
    points: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CocoFile:
    """Holds the content of a file.

    Attributes:
        images: Path of each image, by id.
        annotations: Annotations in the file's order.
        categories: Name of each class, by id.
        groups: Supercategory of classes that have one, by id.
        parts: Part names for the keypoints of each class, by id.
        problems: Messages on entries that cannot be read and are left out.
    """

    images: dict[Key, str]
    annotations: list[Annotation]
    categories: dict[Key, str]
    groups: dict[Key, str]
    parts: dict[Key, list[str]]
    problems: list[str]


def read_coco(file: Path) -> CocoFile:
    """Reads a whole file.

    Args:
        file: JSON with the lists ``images`` and ``categories``, and ``annotations`` if there are
            labels.

    Raises:
        UserError: If it is not such a file.
    """
    try:
        with file.open("rb") as stream:
            content = json.loads(stream.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: cannot be read as JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: found bytes that are not UTF-8, allowed JSON in UTF-8") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise UserError(f"{file}: cannot be read as JSON: too deep") from error
    lists = content if isinstance(content, dict) else {}
    for key in ("images", "annotations", "categories"):
        value = lists.get(key, [] if key == "annotations" else None)
        if not isinstance(value, list):
            found = f"the keys {some(list(lists), 8)}" if lists else "no object"
            raise UserError(f"{file}: expected lists images, annotations and categories in {found}")
    problems: list[str] = []
    images = dict(_images(file, lists["images"], problems))
    categories, groups = _categories(file, lists["categories"], problems)
    parts = _parts(lists["categories"])
    annotations = list(
        _annotations(file, lists.get("annotations", []), images, categories, parts, problems)
    )
    return CocoFile(images, annotations, categories, groups, parts, problems)


def _parts(entries: list[Any]) -> dict[Key, list[str]]:
    """Returns names of keypoints by the category's id."""
    found: dict[Key, list[str]] = {}
    for entry in entries:
        number = _key(entry, "id")
        names = entry.get("keypoints") if number is not None else None
        if number is not None and isinstance(names, list) and names:
            found[number] = [normal(str(name)) for name in names]
    return found


def _images(file: Path, entries: list[Any], problems: list[str]) -> Iterator[tuple[Key, str]]:
    odd: list[str] = []
    seen: set[Key] = set()
    for place, entry in enumerate(entries, start=1):
        number = _key(entry, "id")
        name = entry.get("file_name") if isinstance(entry, Mapping) else None
        if number is None or not isinstance(name, str) or not name or number in seen:
            odd.append(f"{place}" if number is None else f"{place} (id {number})")
            continue
        seen.add(number)
        yield number, name
    if odd:
        problems.append(f"{file}: images without an id of their own and a file_name: {some(odd)}")


def _categories(
    file: Path, entries: list[Any], problems: list[str]
) -> tuple[dict[Key, str], dict[Key, str]]:
    names: dict[Key, str] = {}
    groups: dict[Key, str] = {}
    odd: list[str] = []
    for place, entry in enumerate(entries, start=1):
        number = _key(entry, "id")
        if number is None or number in names:
            odd.append(f"{place}")
            continue
        # Some competitions hide the class names.
        names[number] = normal(str(entry.get("name") or number)).strip()
        group = entry.get("supercategory")
        if isinstance(group, str) and group.strip():
            groups[number] = normal(group).strip()
    if odd:
        problems.append(f"{file}: categories without an id of their own: {some(odd)}")
    return names, groups


def _annotations(
    file: Path,
    entries: list[Any],
    images: Mapping[Key, str],
    categories: Mapping[Key, str],
    parts: Mapping[Key, list[str]],
    problems: list[str],
) -> Iterator[Annotation]:
    odd: dict[str, list[str]] = {}
    for place, entry in enumerate(entries, start=1):
        number, image = _key(entry, "id"), _key(entry, "image_id")
        category = _key(entry, "category_id")
        shown = f"{place}" if number is None else f"id {number}"
        if image is None or image not in images:
            odd.setdefault("without an image of the list", []).append(shown)
        elif category is None or category not in categories:
            odd.setdefault("without a category of the list", []).append(shown)
        else:
            try:
                box = _box(entry.get("bbox"))
            except ValueError:
                odd.setdefault("whose bbox is not [x, y, width, height]", []).append(shown)
                continue
            try:
                points = _points(entry.get("keypoints"), parts.get(category, []))
            except ValueError:
                reason = "whose keypoints are not x, y, visibility of each part of the category"
                odd.setdefault(reason, []).append(shown)
                continue
            crowd = bool(entry.get("iscrowd"))
            own = place if number is None else number
            yield Annotation(own, image, category, box, crowd, points)
    problems += [f"{file}: annotations {reason}: {some(ids)}" for reason, ids in odd.items()]


def _box(value: Any) -> Box | None:
    """Returns (x0, y0, x1, y1) of [x, y, width, height]; None of nothing.

    Raises:
        ValueError: If it is something else.
    """
    if value is None or value == []:
        return None
    try:
        x, y, width, height = (float(number) for number in value)
    except TypeError as error:
        raise ValueError from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError
    return x, y, x + width, y + height


def _points(value: Any, names: list[str]) -> dict[str, tuple[float, float]]:
    """Returns points by name of [x, y, visibility, ...]; visibility 0 means no label.

    Raises:
        ValueError: If it is something else.
    """
    if value in (None, []) or not names:
        return {}
    try:
        numbers = [float(number) for number in value]
    except TypeError as error:
        raise ValueError from error
    if len(numbers) != 3 * len(names) or not all(map(math.isfinite, numbers)):
        raise ValueError
    triples = zip(names, numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return {name: (x, y) for name, x, y, seen in triples if seen > 0}


def _key(entry: Any, name: str) -> Key | None:
    """Returns an id: a number, or text as in some competitions."""
    value = entry.get(name) if isinstance(entry, Mapping) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
