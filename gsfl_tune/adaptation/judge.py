"""Labelled images that judge an adaptation, apart from those that it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.adaptation.images import AdaptedTo
from gsfl_tune.data.decoded import BrokenImage, DecodedImages
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.looks import SIDE, Looks, look
from gsfl_tune.data.near import near_duplicates
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle

_MOST_NAMED = 3


@dataclass(frozen=True)
class JudgeImages:
    """Holds labelled images that an adaptation has not seen.

    Attributes:
        images: Decoded as the bundle reads them.
        labels: (N,) positions in the bundle's classes.
        kept: Positions of those that judge.
        alike: How many are left out because they look like images that were adapted to.
        broken: Images that could not be read.
        notices: What people must know.
    """

    images: DecodedImages
    labels: np.ndarray
    kept: np.ndarray
    alike: int
    broken: list[BrokenImage]
    notices: list[str]


def open_judge(bundle: Bundle, path: str, seen: AdaptedTo, cache: Path) -> JudgeImages:
    """Opens the images of ``--judge``, and leaves out those that look like images adapted to.

    Args:
        bundle: The bundle.
        path: Labelled images, as for an evaluation.
        seen: What the bundle is adapted to.
        cache: Root of the node's caches.

    Raises:
        UserError: If there is none, a class is unknown to the bundle, or an image is among those
            that are adapted to.
    """
    if path.endswith((".yaml", ".yml")):
        raise UserError(
            f"--judge: found the experiment file {path}, allowed class folders, a table, COCO's "
            "JSON, Parquet"
        )
    how, trained = bundle.preprocessing, bundle.config.get("data", {})
    margin = trained["crop_margin"] if trained.get("crop") == "box" else None
    found = open_for_evaluation(path, how.side, how.fit, cache, reading=how.reading, margin=margin)
    labels = np.asarray(found.images.labels)
    labels = bundle.match_classes(found.classes, labels)[labels]
    known = set(seen.contents)
    same = [place for place, each in enumerate(found.contents) if each in known]
    if same:
        names = ", ".join(found.images.paths[place] for place in same[:_MOST_NAMED])
        more = f" and {len(same) - _MOST_NAMED:,} more" if same[_MOST_NAMED:] else ""
        raise UserError(
            f"--judge: {len(same):,} of {len(labels):,} images of {path} are among those adapted "
            f"to ({names}{more}), allowed are others: what an adaptation has seen cannot judge it"
        )
    copies = _alike(seen.images, found.images)
    kept = np.flatnonzero(~copies)
    notices = [f"--judge: {line}" for line in found.notices]
    if not len(kept):
        raise UserError(
            f"--judge: all {len(labels):,} images of {path} look like images adapted to, allowed "
            "are others: what an adaptation has seen cannot judge it"
        )
    if copies.any():
        first = found.images.paths[int(np.flatnonzero(copies)[0])]
        notices.append(
            f"--judge: {int(copies.sum()):,} of {len(labels):,} images are left out, as they look "
            f"like images adapted to, such as {first}"
        )
    return JudgeImages(found.images, labels, kept, int(copies.sum()), found.broken, notices)


def _alike(seen: DecodedImages, judged: DecodedImages) -> np.ndarray:
    """Returns for each judged image whether it is a copy of one that was seen, (N,) bool."""
    numbers = near_duplicates(_looks(seen, judged))
    return np.isin(numbers[len(seen) :], numbers[: len(seen)])


def _looks(*parts: DecodedImages) -> Looks:
    rows = []
    total = sum(map(len, parts))
    with activity("looking for copies of judged images", total, "images") as step:
        for images in parts:
            for place in range(len(images)):
                (square,) = images.squares(np.array([place]))
                small = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                rows.append(look(np.asarray(small)))
                step.done += 1
    descriptors, greys, thumbs, colours = map(np.stack, zip(*rows, strict=True))
    known, taken = np.ones(total, bool), np.full(total, np.nan)
    return Looks(descriptors, greys, thumbs, colours, known, taken, np.zeros(total, np.uint32))
