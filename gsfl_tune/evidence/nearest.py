"""Training images of the predicted and of the true class that are nearest to wrong test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data import Dataset
from gsfl_tune.evidence.trained import TrainedModel

# Most training images of a class among which the nearest one is looked for: each is sent through
# a trained backbone; the features of a frozen one are cached.
_OF_TRAINED, _OF_FROZEN = 30, 500
# Most training images of all classes that only the table shows: there may be a thousand classes.
_FURTHER_TRAINED, _FURTHER_FROZEN = 2048, 40_000
# Bounds the memory: so many parts are held at once.
_AT_ONCE = 4096

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """Holds the nearest training images of N wrong test images.

    Attributes:
        predicted: (N,) positions in the pool, of the predicted class; -1 where it has no images.
        true: (N,) the same of the true class.
        compared: By class, the number of training images that were compared, and of all there are.
    """

    predicted: Positions
    true: Positions
    compared: dict[int, tuple[int, int]]


def nearest_images(
    model: TrainedModel,
    dataset: Dataset,
    wrong: Sequence[dict[str, Any]],
    index: Positions,
    parts: NDArray[np.floating],
    *,
    surest: int,
) -> Nearest:
    """Finds the nearest training images of both classes by the cosine of the discriminative parts.

    Args:
        model: The first seed's model.
        dataset: The images.
        wrong: ``images`` of `wrong_answers`.
        index: (M,) ascending positions of test images whose parts are known.
        parts: (M, H) these parts; those of further images are computed.
        surest: Number of wrong images whose classes are looked through best, from the first on.
    """
    asked = np.array([each["image"] for each in wrong], dtype=np.int64)
    said, true = (
        np.array([each[key] for each in wrong], dtype=np.int64) for key in ("predicted", "label")
    )
    # With `data.shots` no model was trained on the validation images of the pool.
    trained = dataset.final_index
    labels = dataset.pool.labels[trained]
    best = np.union1d(said[:surest], true[:surest]).tolist()
    others = np.setdiff1d(np.union1d(said, true), best).tolist()
    most, further = _OF_TRAINED, _FURTHER_TRAINED
    if not model.finetuned:
        most, further = _OF_FROZEN, _FURTHER_FROZEN
    each_of_others = max(1, min(most, further // max(1, len(others))))
    places = candidates(labels, dict.fromkeys(best, most) | dict.fromkeys(others, each_of_others))
    found = Nearest(
        np.full(len(wrong), -1, np.int64),
        np.full(len(wrong), -1, np.int64),
        {label: (len(own), int((labels == label).sum())) for label, own in places.items()},
    )
    asked_parts = _parts_of(model, asked, index, parts)
    for classes in _bundled(places):
        compared = trained[np.concatenate([places[label] for label in classes])]
        known = _unit(model.latents("pool", compared).discriminative)
        own = dataset.pool.labels[compared]
        for label in classes:
            there = np.flatnonzero(own == label)
            for answers, nearest in ((said, found.predicted), (true, found.true)):
                rows = np.flatnonzero(answers == label)
                similar = asked_parts[rows] @ known[there].T
                nearest[rows] = compared[there[similar.argmax(axis=1)]]
    return found


def candidates(labels: Positions, most: Mapping[int, int]) -> dict[int, Positions]:
    """Returns positions of at most so many images of each class, evenly spread and ascending.

    Args:
        labels: (N,) classes.
        most: Largest number of images by class.
    """
    found = {}
    for label, limit in sorted(most.items()):
        own = np.flatnonzero(labels == label)
        places = np.linspace(0, len(own) - 1, min(limit, len(own))).round().astype(np.int64)
        found[label] = own[places]
    return found


def _bundled(places: Mapping[int, Positions]) -> list[list[int]]:
    """Returns the classes with images in bundles of at most `_AT_ONCE` images, or of one class."""
    bundles: list[list[int]] = []
    size = 0
    for label in sorted(label for label, own in places.items() if len(own)):
        if not bundles or size + len(places[label]) > _AT_ONCE:
            bundles.append([])
            size = 0
        bundles[-1].append(label)
        size += len(places[label])
    return bundles


def _parts_of(
    model: TrainedModel, asked: Positions, index: Positions, parts: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns unit parts of test images; only those that are not known are computed."""
    known = dict(zip(index.tolist(), _unit(parts), strict=True))
    rest = np.array(sorted(set(asked.tolist()) - known.keys()), dtype=np.int64)
    if len(rest):
        computed = _unit(model.latents("test", rest).discriminative)
        known |= dict(zip(rest.tolist(), computed, strict=True))
    return np.stack([known[place] for place in asked.tolist()])


def _unit(parts: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(parts, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
