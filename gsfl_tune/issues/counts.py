"""Classes with few images, and classes that are far larger or smaller than most."""

from __future__ import annotations

import numpy as np

from gsfl_tune.issues._base import Images, Issue

# Fewer training and validation images say little about a class.
FEW = 10
# Factor to the size of the median class.
UNEVEN = 4.0


def odd_counts(images: Images) -> list[Issue]:
    """Lists classes by the number of their training and validation images."""
    labels = np.asarray(images.labels, dtype=np.int64)
    trained = np.isin(images.part_names, ("train", "validation"))
    counts = np.bincount(labels[trained], minlength=len(images.classes))
    middle = float(np.median(counts)) if len(counts) else 0.0
    found = []
    for name, count in zip(images.classes, counts.tolist(), strict=True):
        if count < FEW:
            reason = f"{count} training and validation images, fewer than {FEW}"
            found.append(_of_class(name, "few_images", 1 - count / FEW, reason))
        if not count or not middle:
            continue
        ratio = max(count / middle, middle / count)
        if ratio > UNEVEN:
            size = "more" if count > middle else "fewer"
            reason = (
                f"{count:,} training and validation images, {ratio:.1f} times {size} than the "
                f"median class ({middle:,.0f})"
            )
            found.append(_of_class(name, "imbalance", 1 - 0.5 * UNEVEN / ratio, reason))
    return found


def _of_class(name: str, kind: str, score: float, reason: str) -> Issue:
    return Issue("", name, "", kind, score, "", reason)
