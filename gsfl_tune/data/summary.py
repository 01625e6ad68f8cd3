"""What a data set holds, as numbers and findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gsfl_tune.data.decoded import Geometry
from gsfl_tune.data.held_out import optimistic


# `Dataset` calls this, so its class cannot be named here.
def summary_of(dataset: Any, geometry: Geometry, shots: int | None) -> dict[str, Any]:
    """Counts images and lists findings, ready for JSON.

    Args:
        dataset: A `gsfl_tune.data.Dataset`.
        geometry: How they are decoded.
        shots: ``data.shots``.

    Raises:
        UserError: If the file of ``data.class_text`` does not fit the classes.
    """
    texts = dataset.class_texts
    parts = {
        "train": dataset.pool.labels[dataset.train_index],
        "validation": dataset.pool.labels[dataset.validation_index],
        "test": dataset.test.labels,
    }
    counts = {
        part: np.bincount(labels, minlength=dataset.class_count) for part, labels in parts.items()
    }
    return {
        "classes": dataset.classes,
        "counts": {part: int(count.sum()) for part, count in counts.items()},
        "class_counts": {
            name: {part: int(count[label]) for part, count in counts.items()}
            for label, name in enumerate(dataset.classes)
        },
        "given_validation": dataset.given_validation,
        "given_test": dataset.given_test,
        "shots": shots,
        "spare": len(dataset.split.spare),
        "synthetic": dataset.synthetic_count,
        "unlabelled": 0 if dataset.unlabelled is None else len(dataset.unlabelled),
        "known_groups": dataset.known_groups,
        "class_text": texts and dict(zip(dataset.classes, texts, strict=True)),
        "notices": dataset.notices,
        "split_notices": dataset.split_notices,
        "split_measured": dataset.split_measured,
        "split_optimistic": optimistic(dataset.split_measured),
        "left_out_of_groups": dataset.duplicates.strayed,
        "broken": [{"path": image.path, "reason": image.reason} for image in dataset.broken],
        "duplicates": {
            "groups": dataset.duplicates.groups,
            "classes": classes_of(dataset.duplicates.groups, dataset),
            "dropped": dataset.duplicates.dropped,
            "conflicting": dataset.duplicates.conflicting,
        },
        "side": geometry.side,
        "fit": geometry.fit,
        "digest": dataset.digest,
    }


def classes_of(groups: Sequence[Sequence[str]], dataset: Any) -> list[list[str]]:
    """Returns the classes of images that are listed in sets.

    Args:
        groups: Sets of paths.
        dataset: A `gsfl_tune.data.Dataset` that has them.
    """
    class_of = dataset.class_of_path() if groups else {}
    return [[class_of[path] for path in group] for group in groups]
