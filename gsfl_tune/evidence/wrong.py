"""Wrong test images, the surest first, beside training images that explain the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data import Dataset
from gsfl_tune.evidence.pictures import Picture, wrong_picture
from gsfl_tune.evidence.trained import TrainedModel

# Wrong images that are listed, and those that are drawn.
MOST_LISTED = 2000
MOST_SHOWN = 24
# Most training images of a class among which the nearest one is looked for: each is sent through
# a trained backbone; the features of a frozen one are cached.
_OF_TRAINED, _OF_FROZEN = 30, 500

Positions = NDArray[np.int64]


def wrong_answers(
    logits: NDArray[np.floating],
    labels: Positions,
    paths: Sequence[str],
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Lists the wrong test images, the most confident first.

    Args:
        logits: (N, C) of the first seed, whose model is in the bundle.
        labels: (N,) classes.
        paths: Names of the images.
        temperature: Divides the logits, as in the bundle.

    Returns:
        ``count``, and ``images``, at most `MOST_LISTED`: ``image`` (its position), ``path``,
        ``label``, ``predicted``, ``confidence`` and the ``probability`` of its class.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return {
        "count": len(order),
        "images": [
            {
                "image": place,
                # Two parts tell images apart; the rest is a folder of the training's machine.
                "path": "/".join(paths[place].split("/")[-2:]),
                "label": int(labels[place]),
                "predicted": int(predicted[place]),
                "confidence": round(float(confidence[place]), 6),
                "probability": round(float(probabilities[place, labels[place]]), 6),
            }
            for place in order[:MOST_LISTED].tolist()
        ],
    }


def wrong_pictures(
    folder: Path, model: TrainedModel, dataset: Dataset, wrong: Sequence[dict[str, Any]]
) -> list[Picture]:
    """Draws the surest wrong images, each beside the nearest training images of both classes.

    Nearest is by the cosine of the discriminative parts. The caption says among how many images.

    Args:
        folder: ``RUN/evidence``.
        model: The first seed's model.
        dataset: The images.
        wrong: ``images`` of `wrong_answers`.
    """
    shown = wrong[:MOST_SHOWN]
    if not shown:
        return []
    asked = np.array([each["image"] for each in shown], dtype=np.int64)
    ascending = np.sort(asked)
    parts = _unit(model.latents("test", ascending).discriminative)
    parts = parts[np.searchsorted(ascending, asked)]
    wanted = {each[key] for each in shown for key in ("label", "predicted")}
    most = _OF_TRAINED if model.finetuned else _OF_FROZEN
    # With `data.shots` no model was trained on the validation images of the pool.
    trained = dataset.final_index
    index = trained[candidates(dataset.pool.labels[trained], wanted, most)]
    known = _unit(model.latents("pool", index).discriminative)
    labels = dataset.pool.labels[index]
    count = len(dataset.classes)
    searched = np.bincount(labels, minlength=count).tolist()
    there = np.bincount(dataset.pool.labels[trained], minlength=count).tolist()
    squares = dataset.test.gather(asked)
    pictures = []
    for number, (each, part, square) in enumerate(zip(shown, parts, squares, strict=True), 1):
        similar = known @ part
        row = [square]
        for label in (each["predicted"], each["label"]):
            own = np.flatnonzero(labels == label)
            nearest = index[own[[int(similar[own].argmax())]]]
            row.append(dataset.pool.gather(nearest)[0])
        true, said = dataset.classes[each["label"]], dataset.classes[each["predicted"]]
        further = {key: each[key] for key in ("image", "confidence")}
        among = [(searched[each[key]], there[each[key]]) for key in ("predicted", "label")]
        pictures.append(wrong_picture(folder, number, row, true, said, among, further))
    return pictures


def candidates(labels: Positions, wanted: set[int], most: int) -> Positions:
    """Returns positions of at most so many images of each wanted class, evenly spread."""
    found = []
    for label in sorted(wanted):
        own = np.flatnonzero(labels == label)
        places = np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(np.int64)
        found.append(own[places])
    return np.sort(np.concatenate(found))


def _unit(parts: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(parts, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
