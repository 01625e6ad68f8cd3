"""Annotations of images beyond labels: boxes, part points, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gsfl_tune.data.image_file import Box, Fit, region


def _empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, dtype=np.float32)


@dataclass(frozen=True)
class Annotations:
    """Holds annotations of N images, in their order; unknown values are NaN.

    Attributes:
        boxes: (N, 4) float32, x0, y0, x1, y1.
        points: (N, P, 2) float32, x and y of each visible part.
        attributes: (N, A) float32; 1 or 0 for attributes that are present or absent.
        part_names: Names of the P parts. attribute_names: Names of the A attributes.
    """

    boxes: np.ndarray
    points: np.ndarray
    attributes: np.ndarray
    part_names: list[str] = field(default_factory=list)
    attribute_names: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        boxes: Sequence[Box | None],
        *,
        points: np.ndarray | None = None,
        part_names: Sequence[str] = (),
        attributes: np.ndarray | None = None,
        attribute_names: Sequence[str] = (),
    ) -> Annotations:
        """Makes annotations from those that exist.

        Args:
            boxes: One per image, or None.
            points: (N, P, 2); None without points.
            part_names: Of the P parts.
            attributes: (N, A); None without attributes.
            attribute_names: Of the A attributes.
        """
        count = len(boxes)
        rows = _empty(count, 4)
        for row, box in enumerate(boxes):
            if box is not None:
                rows[row] = box
        return cls(
            rows,
            _empty(count, 0, 2) if points is None else points,
            _empty(count, 0) if attributes is None else attributes,
            list(part_names),
            list(attribute_names),
        )

    @classmethod
    def joined(cls, parts: Sequence[Annotations]) -> Annotations:
        """Joins the annotations of several parts of a data set in order."""
        return cls(
            np.concatenate([each.boxes for each in parts]),
            np.concatenate([each.points for each in parts]),
            np.concatenate([each.attributes for each in parts]),
            parts[0].part_names,
            parts[0].attribute_names,
        )

    def told(self) -> list[str]:
        """Describes the annotations, one line per kind."""
        lines = []
        boxes = int(np.isfinite(self.boxes).all(1).sum())
        if boxes:
            lines.append(f"boxes: {boxes:,} of {len(self):,} images")
        if self.part_names:
            seen = np.isfinite(self.points).all(2).sum(1).mean()
            lines.append(
                f"points of {_counted(self.part_names, 'part')}, {seen:.1f} seen an image: "
                f"{', '.join(self.part_names)}"
            )
        if self.attribute_names:
            known = np.isfinite(self.attributes).mean() if len(self) else 0.0
            names = self.attribute_names
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            lines.append(
                f"{_counted(names, 'attribute')}, {known:.0%} of the values known: "
                f"{', '.join(names[:_NAMED])}{more}"
            )
        return lines

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def empty(self) -> bool:
        """Returns whether no annotation of any image is known."""
        columns = self.boxes, self.points, self.attributes
        return not any(bool(np.isfinite(each).any()) for each in columns)

    def rows(self, positions: np.ndarray) -> Annotations:
        """Selects the annotations of some images."""
        return replace(
            self,
            boxes=self.boxes[positions],
            points=self.points[positions],
            attributes=self.attributes[positions],
        )

    def summary(self) -> dict[str, object]:
        """Counts the annotations, ready for JSON."""
        return {
            "boxes": int(np.isfinite(self.boxes).all(1).sum()),
            "parts": {
                name: int(count)
                for name, count in zip(
                    self.part_names, np.isfinite(self.points).all(2).sum(0), strict=True
                )
            },
            "attributes": {
                name: int(count)
                for name, count in zip(
                    self.attribute_names, np.isfinite(self.attributes).sum(0), strict=True
                )
            },
        }

    def in_squares(
        self, sizes: np.ndarray, side: int, fit: Fit, margin: float | None = None
    ) -> Annotations:
        """Moves boxes and points to their places in the decoded squares, in pixels.

        Parts that `fit` cuts off are outside 0..side. If boxes were cut out, each is the whole
        image; with a margin, a box begins inside its image.

        Args:
            sizes: (N, 2) width and height of the images before decoding.
            side: Side of the squares in pixels.
            fit: How the squares were made, see `gsfl_tune.data.image_file.square`.
            margin: Margin of boxes that were cut out first; None for whole images.
        """
        offset = np.zeros((len(self), 2), np.float32)
        if margin is not None:
            for row, box in enumerate(self.boxes.tolist()):
                if np.isfinite(box).all():
                    # The far edges at most equal those of the image, which do not matter here.
                    offset[row] = region((box[0], box[1], box[2], box[3]), margin, _ANY)[:2]
        scale, shift = _to_square(np.maximum(sizes, 1).astype(np.float64), side, fit)

        def moved(points: np.ndarray) -> np.ndarray:
            """Moves points (N, M, 2)."""
            inside = points - offset[:, None]
            return (inside * scale[:, None] + shift[:, None]).astype(np.float32)

        corners = moved(self.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return replace(self, boxes=corners, points=moved(self.points))

    def moved(self, matrices: np.ndarray) -> Annotations:
        """Moves boxes and points in the same way as the pixels of their images.

        A box becomes the smallest box that holds its four corners. Parts that were cut off are
        outside the image.

        Args:
            matrices: (N, 2, 3), for x and y in pixels, from `Augment.matrices`.
        """
        linear, shift = matrices[:, None, :, :2], matrices[:, None, :, 2]

        def applied(points: np.ndarray) -> np.ndarray:
            """Moves points (N, M, 2)."""
            return ((linear @ points[..., None])[..., 0] + shift).astype(np.float32)

        x, y = self.boxes[:, [0, 2, 2, 0]], self.boxes[:, [1, 1, 3, 3]]
        corners = applied(np.stack([x, y], axis=2))
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        return replace(self, boxes=boxes, points=applied(self.points))


def _counted(names: Sequence[str], what: str) -> str:
    return f"1 {what}" if len(names) == 1 else f"{len(names)} {what}s"


# Largest number of attributes that are named.
_NAMED = 8
# Larger than any image.
_ANY = (1 << 30, 1 << 30)


def _to_square(sizes: np.ndarray, side: int, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Returns factors (N, 2) for x and y, and offsets (N, 2)."""
    if fit == "squash":
        return side / sizes, np.zeros_like(sizes)
    if fit == "crop":
        scale = np.repeat(side / sizes.min(1, keepdims=True), 2, 1)
        return scale, (side - sizes * scale) / 2
    scale = side / sizes.max(1, keepdims=True)
    inner = np.maximum(1, np.round(sizes * scale))
    return inner / sizes, (side - inner) // 2
