"""Parts of objects as boxes: made of points and of the object's own box, and moved with a view."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsfl_tune.data.annotations import Annotations

WHOLE = "object"
"""Name of the part that is the object's own box."""

# Corners that are kept of a box: with three of them a view may move, turn and mirror it.
_CORNERS = 3
# A part of which a view keeps less than this share of the area is not in it.
_LEAST_SEEN = 0.25
_SIDES = re.compile("left|right", re.IGNORECASE)


@dataclass(frozen=True)
class PartBoxes:
    """Holds the boxes of the P parts of B images, as shares of the sides of a view.

    Attributes:
        boxes: (B, P, 4) float32: left, top, right, bottom, cut at the edges of the view; zeros
            where a part is unknown.
        seen: (B, P) float32: 1 where a part is in the view, 0 where a crop left it out, NaN where
            nobody knows.
    """

    boxes: np.ndarray
    seen: np.ndarray


def part_names(annotations: Annotations, *, whole: bool) -> list[str]:
    """Names the parts of images: their points, and before them the object's own box.

    Args:
        annotations: Of the images. Parts that none of them shows have names too, so that the number
            of parts does not depend on which images these are.
        whole: Whether the object's box is a part, where an image has one.
    """
    boxed = whole and bool(np.isfinite(annotations.boxes).all(1).any())
    return [*([WHOLE] if boxed else []), *annotations.part_names]


def known_parts(annotations: Annotations, *, whole: bool) -> bool:
    """Returns whether any part of any image is known."""
    boxed = whole and bool(np.isfinite(annotations.boxes).all(1).any())
    return boxed or bool(np.isfinite(annotations.points).all(2).any())


def with_corners(
    annotations: Annotations,
    side: int,
    size: float,
    *,
    whole: bool,
    names: Sequence[str] | None = None,
) -> Annotations:
    """Returns annotations whose points are corners of the boxes of parts, in order of `part_names`.

    `Annotations.moved` then moves boxes as pixels move, whatever a view does. A point becomes a
    square around it. Its side is a share of the geometric mean of the sides of the object's box;
    where an image has none, of the side of the whole image.

    Args:
        annotations: N images, in pixels of their decoded squares.
        side: Side of the squares in pixels.
        size: Share.
        whole: Whether the object's box is a part, where an image has one.
        names: Of the parts, if they are those of other images; default: `part_names`.

    Returns:
        Points (N, 3 P, 2): upper left, upper right and lower left corner of every part.
    """
    if names is None:
        names = part_names(annotations, whole=whole)
    boxes, points = annotations.boxes.astype(np.float64), annotations.points.astype(np.float64)
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    scale = np.where(np.isfinite(extent).all(1), np.sqrt(extent.prod(1)), side)
    half = (size * scale / 2)[:, None, None]
    found = np.concatenate([points - half, points + half], axis=2)
    if len(names) > points.shape[1]:
        found = np.concatenate([boxes[:, None], found], axis=1)
    left, top, right, bottom = np.moveaxis(found, 2, 0)
    corners = np.stack(
        [np.stack(each, axis=2) for each in ((left, top), (right, top), (left, bottom))], axis=2
    )
    return replace(
        annotations,
        points=corners.reshape(len(boxes), -1, 2).astype(np.float32),
        part_names=[name for name in names for _ in range(_CORNERS)],
    )


def boxes_of(annotations: Annotations, side: int) -> PartBoxes:
    """Returns the boxes of parts in a view.

    In a mirrored view, parts whose names differ by left and right are each other's: the left eye
    looks as a right eye does. A turned box becomes the smallest box that holds it.

    Args:
        annotations: Of `with_corners`, moved to the view.
        side: Side of the view in pixels.
    """
    names = annotations.part_names[::_CORNERS]
    corners = annotations.points.reshape(len(annotations), len(names), _CORNERS, 2)
    corners = corners.astype(np.float64) / side
    first, second, third = np.moveaxis(corners, 2, 0)
    across, down = second - first, third - first
    turned = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    mirrored = np.asarray((turned < 0).any(1))
    every = np.concatenate([corners, (first + across + down)[:, :, None]], axis=2)
    whole = np.concatenate([every.min(2), every.max(2)], axis=2)
    swapped = whole[:, _partners(names)]
    whole = np.where(mirrored[:, None, None], swapped, whole)
    known = np.asarray(np.isfinite(whole).all(2))
    whole = np.where(known[..., None], whole, 0.0)
    cut = whole.clip(0, 1)
    area, left = _area(whole), _area(cut)
    # A box without an area shows nothing.
    known &= area > 0
    seen = np.where(known, left >= _LEAST_SEEN * area, np.nan)
    boxes = np.where(known[..., None], cut, 0.0)
    return PartBoxes(boxes.astype(np.float32), seen.astype(np.float32))


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.asarray((boxes[..., 2:] - boxes[..., :2]).prod(-1))


def _partners(names: list[str]) -> list[int]:
    """Returns the place of each part in a mirrored image."""
    places = {name.lower(): place for place, name in enumerate(names)}
    turned = {"left": "right", "right": "left"}
    found = []
    for place, name in enumerate(names):
        other = _SIDES.sub(lambda word: turned[word[0].lower()], name).lower()
        found.append(places.get(other, place))
    return found
