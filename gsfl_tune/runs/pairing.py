"""The winners of two runs on the same test images, or the reason why they cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.interval import difference
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.report.files import RunFiles
from gsfl_tune.run import read_json
from gsfl_tune.run.layout import TEST_FILE
from gsfl_tune.run.results import Difference
from gsfl_tune.training.predictions import Predictions, load_predictions


class NotComparable(UserError):
    """Signals winners that were not tested on the same images; the message says why."""


@dataclass(frozen=True)
class TestedWinner:
    """Holds how the retrained seeds of a winner answered the test images.

    Attributes:
        name: Of the run, for messages.
        correct: (seeds, N) whether each answer was right.
        paths: N names of the images.
        labels: N names of their classes.
        data: Digest of images and split, from ``run.json``.
        test: Digest of the test images alone, from the bundle; None in older ones.
    """

    __test__ = False  # not a test of pytest

    name: str
    correct: NDArray[np.bool_]
    paths: list[str]
    labels: list[str]
    data: str | None
    test: str | None


def tested_winner(files: RunFiles, name: str) -> TestedWinner:
    """Reads the predictions of a run's winner.

    Args:
        files: The run.
        name: Of the run, for messages.

    Raises:
        NotComparable: If the winner is not tested yet, or its predictions are gone.
    """
    results, run = files.results.results, files.run
    if results is None:
        raise NotComparable(f"{name} is not finished: its winner is not tested yet")
    folder = run.finals / f"search-{results.winner.trial}" / "retrain"
    seeds: list[Predictions] = []
    for seed in results.winner.seeds:
        file = folder / f"seed-{seed}" / TEST_FILE
        try:
            seeds.append(load_predictions(file))
        except (OSError, ValueError, KeyError) as error:
            raise NotComparable(
                f"{name}: the predictions of its winner cannot be read ({file}: {error})"
            ) from error
    first = seeds[0]
    if any(each.paths != first.paths for each in seeds):
        raise NotComparable(f"{name}: the seeds of its winner were tested on different images")
    classes = list(files.data.get("classes") or ())
    return TestedWinner(
        name=name,
        correct=np.stack([each.correct for each in seeds]),
        paths=first.paths,
        labels=[classes[label] if label < len(classes) else str(label) for label in first.labels],
        data=_text(files.manifest.get("data")),
        test=_test_digest(files),
    )


def paired(one: TestedWinner, other: TestedWinner) -> Difference:
    """Returns the test accuracy of one winner minus that of another, image by image.

    Args:
        one: A winner.
        other: Another one.

    Raises:
        NotComparable: If their test images or labels differ, or it is not known whether they do.
    """
    _refuse_other_images(one, other)
    order = _order(one, other)
    differing = sum(one.labels[k] != other.labels[j] for k, j in enumerate(order))
    if differing:
        raise NotComparable(
            f"{differing} of {len(order)} test images have another class in {other.name} than in "
            f"{one.name}"
        )
    return difference(one.correct, other.correct[:, order])


def _refuse_other_images(one: TestedWinner, other: TestedWinner) -> None:
    if one.data is not None and one.data == other.data:
        return
    counts = f"{one.name} has {len(one.paths):,}, {other.name} has {len(other.paths):,}"
    if one.test is None or other.test is None:
        if len(one.paths) != len(other.paths):
            raise NotComparable(f"the test images differ: {counts}")
        older = one.name if one.test is None else other.name
        raise NotComparable(
            f"images or split differ, and {older} did not record which images are its test images "
            "(an older version made its bundle, or the bundle is gone)"
        )
    if one.test != other.test:
        raise NotComparable(f"the test images differ: {counts}, not the same ones")


def _order(one: TestedWinner, other: TestedWinner) -> list[int]:
    """Returns the place in the other's predictions of every image of the first."""
    if one.paths == other.paths or (one.data is not None and one.data == other.data):
        # With the same digest images and their order are the same, wherever their files are now.
        return list(range(len(one.paths)))
    places = {path: place for place, path in enumerate(other.paths)}
    if len(places) < len(other.paths) or set(places) != set(one.paths):
        raise NotComparable(
            "the test images are the same, but their names are not, and nothing else says which "
            "answer belongs to which image"
        )
    return [places[path] for path in one.paths]


def _test_digest(files: RunFiles) -> str | None:
    try:
        content: Any = read_json(files.run.best / "config.json")
        return _text(content["trained_on"]["test"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
