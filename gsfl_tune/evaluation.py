"""Evaluation of a bundle on labelled images: classes, confusions and wrong images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gsfl_tune.data import DecodedImages
from gsfl_tune.data.cost_matrix import load_cost_matrix
from gsfl_tune.data.labelled_images import LabelledImages
from gsfl_tune.evidence.confusions import attraction, confusion_matrix, most_confused
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import RANKED
from gsfl_tune.export import Bundle
from gsfl_tune.export.engine import Engine
from gsfl_tune.export.quicken import quickened
from gsfl_tune.export.thresholds import half_threshold
from gsfl_tune.report.embedding import jpeg_url
from gsfl_tune.run import write_text
from gsfl_tune.training.metrics import answered, classification_metrics, log_softmax

_THUMBNAIL = 128
_MOST_NAMED = 10


@dataclass(frozen=True)
class ClassScore:
    """Holds the scores of one class that occurs as a label or an answer.

    Attributes:
        name: Name of the class.
        count: Images of the class.
        predicted: Images predicted as the class.
        recall: Share of its images predicted as it; None without images.
        precision: Share of images predicted as it that belong to it; None if there are none.
        f1: Harmonic mean of both.
    """

    name: str
    count: int
    predicted: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Answer:
    """Holds a bundle's answer for one image.

    Attributes:
        path: The image.
        label: Its class.
        predicted: The most probable class.
        confidence: Probability of the predicted class.
        probability: Probability of the image's own class.
    """

    path: str
    label: str
    predicted: str
    confidence: float
    probability: float

    @property
    def right(self) -> bool:
        """Returns whether the most probable class is the image's own."""
        return self.label == self.predicted


@dataclass(frozen=True)
class Evaluation:
    """Holds the results of a bundle on labelled images.

    Attributes:
        data: The images.
        metrics: All metrics, by name; those at a threshold if the bundle has one.
        classes: Names of the classes that occur, as labels or as answers, in the bundle's order.
        matrix: (K, K) counts; row: the image's class, column: the answer.
        answers: One per image, in the order of `data.images`.
        absent: Classes of the bundle that no image has; means over classes leave them out.
    """

    data: LabelledImages
    metrics: dict[str, float]
    classes: list[str]
    matrix: NDArray[np.int64]
    answers: list[Answer]
    absent: list[str] = field(default_factory=list)

    @property
    def notices(self) -> list[str]:
        """Returns what a reader of the metrics must know."""
        notices = list(self.data.notices)
        found = attraction(self.matrix)
        if found is not None:
            notices.append(found.sentence(self.classes[found.target]))
        if not self.absent:
            return notices
        some = ", ".join(self.absent[:_MOST_NAMED])
        more = f" and {len(self.absent) - _MOST_NAMED} more" if self.absent[_MOST_NAMED:] else ""
        told = f"means over classes leave out those without an image here: {some}{more}"
        return [*notices, told]

    def class_scores(self) -> list[ClassScore]:
        """Returns the scores of every class that occurs, in the order of `classes`."""
        right = np.diag(self.matrix)
        counts, predicted = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        return [
            ClassScore(
                name,
                int(count),
                int(taken),
                int(hits) / int(count) if count else None,
                int(hits) / int(taken) if taken else None,
                2 * int(hits) / int(count + taken),
            )
            for name, hits, count, taken in zip(self.classes, right, counts, predicted, strict=True)
        ]

    def confused(self, top: int | None = None) -> list[dict[str, Any]]:
        """Returns pairs of classes that are confused with each other, most confusions first.

        Args:
            top: Number of pairs; default: all.
        """
        pairs = most_confused(self.matrix, len(self.matrix) ** 2 if top is None else top)
        return [
            {
                "classes": [self.classes[pair.first], self.classes[pair.second]],
                "counts": [pair.first_as_second, pair.second_as_first],
                "share": pair.share,
            }
            for pair in pairs
        ]

    def wrong(self) -> list[int]:
        """Returns positions of wrongly answered images, the most confident answer first."""
        wrong = [place for place, answer in enumerate(self.answers) if not answer.right]
        return sorted(wrong, key=lambda place: -self.answers[place].confidence)

    def to_json(self) -> dict[str, Any]:
        """Returns all results ready for JSON; lists only the images with wrong answers."""
        data = self.data
        return {
            "part": data.part,
            "images": len(data.images),
            "classes": len(data.classes),
            "unlabelled": data.unlabelled,
            "broken": len(data.broken),
            "broken_images": [asdict(image) for image in data.broken],
            "notices": self.notices,
            "metrics": self.metrics,
            "per_class": [asdict(score) for score in self.class_scores()],
            "confusion": {"classes": self.classes, "matrix": self.matrix.tolist()},
            "most_confused": self.confused(),
            "wrong_images": [asdict(self.answers[place]) for place in self.wrong()],
        }

    def write_csv(self, directory: Path) -> list[Path]:
        """Writes ``classes.csv``, ``confusion.csv`` and ``images.csv``, replacing existing ones.

        Args:
            directory: Target directory; created if needed.

        Returns:
            The files.

        Raises:
            UserError: If they cannot be written.
        """
        tables: dict[str, Iterator[Sequence[Any]]] = {
            "classes.csv": self._class_rows(),
            "confusion.csv": self._confusion_rows(),
            "images.csv": self._image_rows(),
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, rows in tables.items():
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(rows)
                write_text(directory / name, text.getvalue())
        except OSError as error:
            raise UserError(f"{directory}: cannot be written ({error.strerror})") from error
        return [directory / name for name in tables]

    def _class_rows(self) -> Iterator[Sequence[Any]]:
        yield ["class", "images", "predicted", "recall", "precision", "f1"]
        for score in self.class_scores():
            yield list(asdict(score).values())

    def _confusion_rows(self) -> Iterator[Sequence[Any]]:
        yield ["class", *self.classes]
        for name, row in zip(self.classes, self.matrix.tolist(), strict=True):
            yield [name, *row]

    def _image_rows(self) -> Iterator[Sequence[Any]]:
        yield ["path", "class", "predicted", "confidence", "probability_of_class", "right"]
        for answer in self.answers:
            yield [*asdict(answer).values(), str(answer.right).lower()]


def evaluate(
    bundle: Bundle,
    data: LabelledImages,
    cost_matrix: str | Path | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Scores a bundle on labelled images; classes are matched by name.

    Args:
        bundle: The bundle.
        data: Images, decoded to the bundle's side.
        cost_matrix: File of the costs of answers, see
            `gsfl_tune.data.cost_matrix.load_cost_matrix`; all classes of the bundle are in it.
        engine: Who computes on a CPU; default: whoever is faster.

    Raises:
        UserError: If a class is unknown to the bundle, there is no image, or the images were
            decoded to another side.
    """
    images = data.images
    if not len(images):
        raise UserError("no image to evaluate on")
    labels = bundle.match_classes(data.classes, images.labels)[np.asarray(images.labels)]
    costs = None if cost_matrix is None else load_cost_matrix(cost_matrix, bundle.classes)
    size = bundle.preprocessing.image_size
    with quickened(bundle.networks, size, len(images), bundle.device, engine=engine):
        logits = bundle.logits(images)
    scores = log_softmax(logits.astype(np.float64))
    predicted = scores.argmax(axis=1)
    rows = np.arange(len(labels))
    present = np.unique(np.concatenate([labels, predicted]))
    whole = confusion_matrix(predicted, labels, len(bundle.classes))
    answers = [
        Answer(path, bundle.classes[label], bundle.classes[guess], float(most), float(own))
        for path, label, guess, most, own in zip(
            images.paths,
            labels.tolist(),
            predicted.tolist(),
            np.exp(scores[rows, predicted]),
            np.exp(scores[rows, labels]),
            strict=True,
        )
    ]
    metrics = classification_metrics(logits, labels, ranked=RANKED, costs=costs)
    threshold = half_threshold(bundle.calibration)
    if threshold is not None:
        kept = np.exp(scores[rows, predicted]) >= threshold
        metrics["auto_coverage"], metrics["auto_accuracy"] = answered(kept, predicted == labels)
    return Evaluation(
        data,
        metrics,
        [bundle.classes[each] for each in present],
        whole[np.ix_(present, present)],
        answers,
        [bundle.classes[each] for each in np.setdiff1d(np.arange(len(bundle.classes)), labels)],
    )


def training_images_told(trained_on: Mapping[str, Any], data: LabelledImages) -> list[str]:
    """Says so if a bundle was trained on some of the images that are scored.

    It is noticed where the images are all those of the run, and another part of them was its test
    part. A part of them, or copies of other bytes, cannot be told from other images.

    Args:
        trained_on: What the bundle has seen, of its ``config.json``; empty if that is unknown.
        data: The images.
    """
    drawn = data.drawn_from
    if not trained_on or drawn is None or trained_on.get("test") == drawn.test:
        return []
    # Bundles of earlier versions do not say how many images there were.
    if trained_on.get("count", drawn.count) != drawn.count:
        return []
    # Asked last, as it may have to read images that are not scored.
    if trained_on.get("images") != drawn.images():
        return []
    return [
        "the bundle was trained on some of these images, so its score is too good: they are those "
        "of its run, of which other images are the test part (data.split)"
    ]


def thumbnail(images: DecodedImages, position: int) -> str:
    """Returns a small version of a decoded image as a ``data:`` URL.

    Args:
        images: The images.
        position: Position of the image.
    """
    picture = Image.fromarray(images.gather(np.array([position]))[0])
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return jpeg_url(picture, 82)
