"""A batch of training images: what is seen of them, and what is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gsfl_tune.data.annotations import Annotations


@dataclass(frozen=True)
class Targets:
    """What the images of a batch are.

    Attributes:
        labels: (B,) int64 classes.
        soft: (B, C) probabilities of the classes, which the cross-entropy takes in place of the
            labels; None where labels are all that is known.
        weights: (B,) weight of each image in the cross-entropy, of mean 1 over a batch that
            counts in full; None weighs all alike.
        others: (B,) int64 classes of what was mixed in; None where nothing was.
        kept: Share of an image that was not mixed in, one half to 1; one number for the batch.
        teacher: (B, C) class scores that a teacher gives; None without one.
        teacher_of_others: (B, C) those of what was mixed in, where the teacher saw images before
            they were mixed. None where ``teacher`` is of what is seen.
    """

    labels: Tensor
    soft: Tensor | None = None
    weights: Tensor | None = None
    others: Tensor | None = None
    kept: float = 1.0
    teacher: Tensor | None = None
    teacher_of_others: Tensor | None = None

    def weighted(self, weights: Tensor) -> Targets:
        """Returns the same targets with images that count (B,) times as much as before."""
        return replace(self, weights=weights if self.weights is None else self.weights * weights)

    def chunk(self, count: int) -> list[Targets]:
        """Splits the targets as ``torch.chunk`` splits their labels."""
        labels = self.labels.chunk(count)

        def parts(values: Tensor | None) -> tuple[Tensor | None, ...]:
            return (None,) * len(labels) if values is None else values.chunk(count)

        columns = labels, parts(self.soft), parts(self.weights), parts(self.others)
        teachers = parts(self.teacher), parts(self.teacher_of_others)
        rows = zip(zip(*columns, strict=True), zip(*teachers, strict=True), strict=True)
        return [Targets(*each, self.kept, *teacher) for each, teacher in rows]


@dataclass(frozen=True)
class Batch:
    """Images of a batch by name.

    Attributes:
        views: What is seen of the B images: one or several tensors (B, ...) with the same images in
            the same order. Images (B, 3, side, side), activations of frozen blocks, or unit
            features (B, D).
        targets: Their classes.
        positions: (B,) int64 positions of the images in their part, on the CPU or on the device.
        annotations: Of each view, with boxes and points in its pixels; None where the source has
            none, or where nobody asked for them.
    """

    views: tuple[Tensor, ...]
    targets: Targets
    positions: Tensor
    annotations: tuple[Annotations, ...] | None = None

    @property
    def inputs(self) -> Tensor:
        """The only view.

        Raises:
            ValueError: If there are several.
        """
        if len(self.views) != 1:
            raise ValueError(f"the batch has {len(self.views)} views, not one")
        return self.views[0]

    @property
    def labels(self) -> Tensor:
        """(B,) int64 classes."""
        return self.targets.labels

    def __len__(self) -> int:
        return len(self.targets.labels)

    def seen_as(self, *views: Tensor) -> Batch:
        """Returns the same images with other views."""
        return replace(self, views=views)

    def chunk(self, count: int) -> Iterator[Batch]:
        """Splits a batch along its images, as ``torch.chunk`` does.

        Args:
            count: Parts; there may be fewer, and the last one may be smaller.
        """
        columns = [view.chunk(count) for view in self.views]
        positions = self.positions.chunk(count)
        start = 0
        parts = zip(zip(*columns, strict=True), self.targets.chunk(count), positions, strict=True)
        for views, targets, place in parts:
            annotations = None
            if self.annotations is not None:
                rows = torch.arange(start, start + len(place)).numpy()
                annotations = tuple(each.rows(rows) for each in self.annotations)
            start += len(place)
            yield Batch(tuple(views), targets, place, annotations)
