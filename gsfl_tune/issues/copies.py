"""Copies of images in the data, byte-identical or visually identical."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gsfl_tune.data import Duplicates
from gsfl_tune.issues._base import Issue

# Scores of a set of copies: labels contradict each other, or a held-out image is trained on.
_LABELS, _PARTS, _NEITHER = 1.0, 0.9, 0.5
# Subtracted if images look the same but are not byte-identical.
_TO_THE_EYE = 0.05
_NAMED = 3
SAME_BYTES = "the same bytes as"
BY_FEATURES = "alike by its features:"


def copies(
    identical: Duplicates,
    near: Duplicates,
    class_of: Mapping[str, str],
    part_of: Mapping[str, str],
) -> list[Issue]:
    """Lists every image of every set of copies.

    Sets with different labels come first, then those across parts that the source gives.

    Args:
        identical: Sets of byte-identical images.
        near: Sets of images that are copies to the eye.
        class_of: Class of each image by its path.
        part_of: Part of each image by its path; broken ones have none.
    """
    of_near = {path: number for number, paths in enumerate(near.groups) for path in paths}
    # Byte-identical images that are part of a larger set are not listed again.
    alone = [
        paths
        for paths in identical.groups
        if len({of_near.get(path) for path in paths}) > 1 or paths[0] not in of_near
    ]
    sets = [(paths, SAME_BYTES) for paths in alone]
    sets += [(paths, "looks the same as") for paths in near.groups]
    return listed(sets, "near_duplicate", class_of, part_of)


def listed(
    sets: Sequence[tuple[Sequence[str], str]],
    kind: str,
    class_of: Mapping[str, str],
    part_of: Mapping[str, str],
) -> list[Issue]:
    """Lists every image of some sets.

    Args:
        sets: Paths of each set, and their relation in words.
        kind: Kind of the issues.
        class_of: Class of each image by its path.
        part_of: Part of each image by its path; broken ones have none.
    """
    found = []
    for number, (paths, does) in enumerate(sets):
        classes, parts = {class_of[path] for path in paths}, _parts(paths, part_of)
        harm = _LABELS if len(classes) > 1 else _PARTS if len(parts) > 1 else _NEITHER
        score = harm if does == SAME_BYTES else harm - _TO_THE_EYE
        kept = _kept(paths, part_of)
        for path in paths:
            if len(classes) > 1:
                suggestion = "compare the labels" if does == BY_FEATURES else "decide on one class"
            elif does == BY_FEATURES:
                # Often different things in one place: only a person sees which of them are copies.
                suggestion = "keep in one part" if len(parts) > 1 else ""
            else:
                suggestion = "" if path == kept else "leave out"
            found.append(
                Issue(
                    path=path,
                    class_name=class_of[path],
                    part=part_of.get(path, ""),
                    issue=kind,
                    score=score,
                    suggestion=suggestion,
                    reason=f"{does} {_others(path, paths, class_of, part_of)}",
                    set_number=number,
                )
            )
    return found


def _parts(paths: Iterable[str], part_of: Mapping[str, str]) -> set[str]:
    return {part_of[path] for path in paths if path in part_of}


def _kept(paths: Sequence[str], part_of: Mapping[str, str]) -> str:
    """Chooses the copy to keep: from a held-out part, because the test part must not change."""
    order = ["test", "validation", "train"]
    return min(
        paths, key=lambda path: order.index(p) if (p := part_of.get(path, "")) in order else 3
    )


def _others(
    path: str,
    paths: Sequence[str],
    class_of: Mapping[str, str],
    part_of: Mapping[str, str],
) -> str:
    others = [other for other in paths if other != path]
    named = "; ".join(
        f"{other} ({class_of[other]}{f', {part_of[other]}' if other in part_of else ''})"
        for other in others[:_NAMED]
    )
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{named}{more}"
