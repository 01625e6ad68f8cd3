"""Data of the page's Model tab: classes, confused pairs, groups, matrices and feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.pictures import Picture, Pictures


@dataclass(frozen=True)
class ClassRow:
    """Holds the test results of one class."""

    name: str
    group: int | None
    images: int | None
    accuracy: float | None
    worst: bool


@dataclass(frozen=True)
class Pair:
    """Holds two classes that the model confuses."""

    first: str
    second: str
    first_as_second: int
    second_as_first: int
    share: float
    same_group: bool | None
    picture: Picture | None


@dataclass(frozen=True)
class Group:
    """Holds a group of classes that share features."""

    number: int
    classes: list[str]
    pictures: list[Picture]
    accuracy: float | None


def class_names(files: RunFiles) -> list[str]:
    """Returns the classes in the order of their numbers."""
    evidence = files.evidence or {}
    return list(evidence.get("per_class_accuracy") or files.data.get("classes") or ())


def groups_of(files: RunFiles) -> dict[str, int]:
    """Maps each class to its group; empty for a winner without a shared part."""
    return files.results.results.groups if files.results.results else {}


def no_groups(files: RunFiles) -> str:
    """Says why there are no groups to show."""
    if files.results.results is None:
        return "The run is not finished: the winner decides the groups."
    head = files.results.results.winner.config.get("model", {}).get("head")
    spec = HEADS.get(str(head))
    if spec is None:
        return "The results list no groups of the winner."
    if not spec.grouped:
        return f"The winner has no groups: its head is {head}."
    if not spec.shared:
        return f"The winner was trained with groups, which serve the loss of its {head} head alone."
    return "The results do not list the groups of the winner."


def class_rows(files: RunFiles) -> list[ClassRow]:
    """Returns all classes, the worst first; those without test images come last."""
    accuracy, _ = files.part("per_class_accuracy")
    worst, _ = files.part("worst_tenth")
    groups = groups_of(files)
    counts = files.data.get("class_counts") or {}
    rows = [
        ClassRow(
            name=name,
            group=groups.get(name),
            images=(counts.get(name) or {}).get("test"),
            accuracy=value,
            worst=name in ((worst or {}).get("classes") or ()),
        )
        for name, value in (accuracy or {}).items()
    ]
    return sorted(rows, key=lambda row: (row.accuracy is None, row.accuracy, row.name))


def pairs(files: RunFiles, pictures: Pictures) -> list[Pair]:
    """Returns the most confused pairs, most confusions first."""
    found, _ = files.part("most_confused")
    groups = groups_of(files)
    return [
        Pair(
            first=each["classes"][0],
            second=each["classes"][1],
            first_as_second=each["counts"][0],
            second_as_first=each["counts"][1],
            share=each["share"],
            same_group=groups.get(each["classes"][0]) == groups.get(each["classes"][1])
            if groups
            else None,
            picture=pictures.pair(each["classes"]),
        )
        for each in found or ()
    ]


def class_groups(files: RunFiles, pictures: Pictures) -> list[Group]:
    """Returns the groups with their classes and contact sheets."""
    members: dict[int, list[str]] = {}
    for name, group in groups_of(files).items():
        members.setdefault(group, []).append(name)
    accuracy = (files.evidence or {}).get("per_class_accuracy") or {}
    sheets = pictures.of("group")
    return [
        Group(
            number,
            names,
            [
                s
                for s in sheets
                if s.group == number or (s.classes and set(s.classes) <= set(names))
            ],
            _mean([accuracy.get(name) for name in names]),
        )
        for number, names in sorted(members.items())
    ]


def confusion_chart(files: RunFiles) -> dict[str, Any] | None:
    """Returns the matrix for the script: ordered classes, nonzero cells and starts of groups."""
    found, _ = files.part("confusion")
    if found is None:
        return None
    names = class_names(files)
    matrix: Sequence[Sequence[int]] | None = found.get("matrix")
    if matrix is not None:
        order = [int(each) for each in found.get("order") or range(len(matrix))]
        labels = [names[each] if each < len(names) else f"class {each}" for each in order]
        cells = [
            [row, column, int(matrix[true][guess])]
            for row, true in enumerate(order)
            for column, guess in enumerate(order)
            if matrix[true][guess]
        ]
        known = groups_of(files)
        groups = [known.get(label) for label in labels]
        edges = [at for at in range(1, len(groups)) if groups[at] != groups[at - 1]]
        return {"labels": labels, "cells": cells, "edges": edges, "groups": groups}
    return None


def group_confusion_chart(files: RunFiles) -> dict[str, Any] | None:
    """Returns the matrix of the groups, for too many classes or beside the class matrix."""
    found, _ = files.part("confusion_groups")
    if found is None:
        found = (files.part("confusion")[0] or {}).get("confusion_groups")
    if isinstance(found, Mapping):
        found = found.get("matrix")
    if not found:
        return None
    cells = [
        [row, column, int(count)]
        for row, counts in enumerate(found)
        for column, count in enumerate(counts)
        if count
    ]
    return {
        "labels": [f"group {number}" for number in range(len(found))],
        "cells": cells,
        "edges": [],
        "groups": list(range(len(found))),
    }


def map_chart(files: RunFiles) -> dict[str, Any] | None:
    """Returns the points of both maps for the script, each scaled to a square of 0 to 1000."""
    found, _ = files.part("map")
    points = (found or {}).get("points") or []
    if not points:
        return None
    chart: dict[str, Any] = {
        "labels": [int(point["label"]) for point in points],
        "predicted": [int(point["predicted"]) for point in points],
    }
    for part in ("shared", "discriminative"):
        if all(part in point for point in points):
            chart[part] = _square([point[part] for point in points])
    return chart if "shared" in chart or "discriminative" in chart else None


def _square(points: Sequence[Sequence[float]]) -> list[int]:
    """Returns x and y alternately, both with one scale so that distances stay comparable."""
    xs, ys = [float(p[0]) for p in points], [float(p[1]) for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    left = (min(xs) + max(xs) - span) / 2
    bottom = (min(ys) + max(ys) - span) / 2
    flat: list[int] = []
    for x, y in zip(xs, ys, strict=True):
        flat += [round(1000 * (x - left) / span), round(1000 * (y - bottom) / span)]
    return flat


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
