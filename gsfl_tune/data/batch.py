"""A batch of training images: its views and its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gsfl_tune.data.annotations import Annotations


@dataclass(frozen=True)
class Targets:
    """Holds the classes of a batch's images.

    Attributes:
        labels: (B,) int64 classes.
        soft: (B, C) probabilities of the classes, which the cross-entropy uses instead of the
            labels; None if there are only labels.
        weights: (B,) weight of each image in the cross-entropy, with mean 1 over a full batch; None
            for equal weights.
        others: (B,) int64 classes of the images mixed in; None without mixing.
        kept: Share of an image itself after mixing, one half to 1; one number for the batch.
        extras: Further values (B, ...) of the images, by the names under which terms of the loss
            read them; see `gsfl_tune.losses.LossInput.extras`.
        extras_of_others: Those of the images mixed in. A name that is missing here belongs to the
            mixed images, such as scores of a teacher that saw the images after they were mixed.
    """

    labels: Tensor
    soft: Tensor | None = None
    weights: Tensor | None = None
    others: Tensor | None = None
    kept: float = 1.0
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    extras_of_others: Mapping[str, Tensor] = field(default_factory=dict)

    def weighted(self, weights: Tensor) -> Targets:
        """Returns the same targets with weights multiplied by (B,) factors."""
        return replace(self, weights=weights if self.weights is None else self.weights * weights)

    def having(self, **extras: Tensor) -> Targets:
        """Returns the same targets with further extras."""
        return replace(self, extras={**self.extras, **extras})

    def chunk(self, count: int) -> list[Targets]:
        """Splits the targets as ``torch.chunk`` splits their labels."""
        labels = self.labels.chunk(count)

        def parts(values: Tensor | None) -> tuple[Tensor | None, ...]:
            return (None,) * len(labels) if values is None else values.chunk(count)

        def named(values: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
            pieces = {name: each.chunk(count) for name, each in values.items()}
            return [
                {name: each[place] for name, each in pieces.items()} for place in range(len(labels))
            ]

        columns = labels, parts(self.soft), parts(self.weights), parts(self.others)
        further = zip(named(self.extras), named(self.extras_of_others), strict=True)
        rows = zip(zip(*columns, strict=True), further, strict=True)
        return [Targets(*each, self.kept, *more) for each, more in rows]


@dataclass(frozen=True)
class Batch:
    """Holds the images of a batch by name.

    Attributes:
        views: One or several tensors (B, ...) with the same B images in the same order: images (B,
            3, side, side), activations of frozen blocks, or unit features (B, D).
        targets: Their classes.
        positions: (B,) int64 positions of the images in their part, on the CPU or on the device.
        annotations: Annotations of each view, with boxes and points in its pixels; None if the
            source has none or none were requested.
        unlabelled: A weakly and a strongly changed view (M, ...) of other images, without labels;
            M is a multiple of B, so that pieces of a batch have their share of them. None if the
            method asks for none.
        side: Side in pixels of the images that annotations are of; None without annotations. Views
            may be activations of these images.
    """

    views: tuple[Tensor, ...]
    targets: Targets
    positions: Tensor
    annotations: tuple[Annotations, ...] | None = None
    unlabelled: tuple[Tensor, Tensor] | None = None
    side: int | None = None

    @property
    def inputs(self) -> Tensor:
        """Returns the only view.

        Raises:
            ValueError: If there are several.
        """
        if len(self.views) != 1:
            raise ValueError(f"the batch has {len(self.views)} views, not one")
        return self.views[0]

    @property
    def labels(self) -> Tensor:
        """Returns the (B,) int64 classes."""
        return self.targets.labels

    def __len__(self) -> int:
        return len(self.targets.labels)

    def seen_as(self, *views: Tensor) -> Batch:
        """Returns the same images with other views."""
        return replace(self, views=views)

    def chunk(self, count: int) -> Iterator[Batch]:
        """Splits a batch along its images, as ``torch.chunk`` does.

        Args:
            count: Number of parts; there may be fewer, and the last one may be smaller.
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
            more = self._unlabelled(start, len(place))
            start += len(place)
            yield Batch(tuple(views), targets, place, annotations, more, self.side)

    def _unlabelled(self, start: int, count: int) -> tuple[Tensor, Tensor] | None:
        """Returns those that belong to `count` images."""
        if self.unlabelled is None:
            return None
        weak, strong = self.unlabelled
        each = len(weak) // len(self)
        own = slice(start * each, (start + count) * each)
        return weak[own], strong[own]
