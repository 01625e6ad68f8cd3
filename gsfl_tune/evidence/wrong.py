"""Wrong test images, the surest first, beside training images that explain the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data import Dataset
from gsfl_tune.evidence.nearest import Nearest
from gsfl_tune.evidence.pictures import Picture, wrong_picture

# Wrong images that are listed, and those that are drawn.
MOST_LISTED = 5000
MOST_SHOWN = 24

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
    folder: Path, dataset: Dataset, wrong: Sequence[dict[str, Any]], nearest: Nearest
) -> list[Picture]:
    """Draws the surest wrong images, each beside the nearest training images of both classes.

    The caption says among how many images the nearest one was looked for.

    Args:
        folder: ``RUN/evidence``.
        dataset: The images.
        wrong: ``images`` of `wrong_answers`.
        nearest: Training images for these.
    """
    pictures: list[Picture] = []
    for number, each in enumerate(wrong[:MOST_SHOWN], 1):
        places = np.array([nearest.predicted[number - 1], nearest.true[number - 1]])
        if places.min() < 0:
            continue
        row = [*dataset.test.gather(np.array([each["image"]])), *dataset.pool.gather(places)]
        true, said = dataset.classes[each["label"]], dataset.classes[each["predicted"]]
        further = {key: each[key] for key in ("image", "confidence")}
        among = [nearest.compared[each[key]] for key in ("predicted", "label")]
        pictures.append(wrong_picture(folder, number, row, true, said, among, further))
    return pictures
