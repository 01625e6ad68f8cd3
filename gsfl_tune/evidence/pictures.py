"""Pictures of the evidence: images of confused classes, classes of a group, Grad-CAM.

Pictures contain no text: titles, captions and class names are in ``evidence.json``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gsfl_tune.data import Dataset, DecodedImages, square_side
from gsfl_tune.data.contact_sheet import contact_sheet
from gsfl_tune.evidence.blend import blend
from gsfl_tune.evidence.confusions import confusion_matrix, most_confused
from gsfl_tune.run import write_bytes

Kind = Literal["confused", "group", "gradcam", "wrong"]

MOST_BYTES = 60_000
# There may be many of these rows of three small images.
_ROW_BYTES = 12_000
MOST_PAIRS = 10
MOST_GROUPS = 30
_MOST_CLASSES = 60
_PER_CLASS, _MISTAKES = 5, 3
_THUMBNAIL = 112
_CAM_SIDE = 192
_GAP = 4
_FRAME = 4
# Vermilion of Okabe and Ito: differs from the white frame with any colour vision.
_MISTAKEN = (213, 94, 0)
_QUALITIES = (88, 80, 70, 60, 50)


@dataclass(frozen=True)
class Picture:
    """Holds a picture's file and text.

    Attributes:
        kind: Kind of picture.
        file: Path relative to the run directory.
        title: Short title.
        caption: Description in sentences.
        classes: Names of the classes shown.
        further: Further keys of its entry.
    """

    kind: Kind
    file: str
    title: str
    caption: str
    classes: list[str]
    further: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns one flat mapping."""
        content = asdict(self)
        return content | content.pop("further")


def confused_pictures(
    folder: Path,
    images: DecodedImages,
    logits: NDArray[np.floating],
    classes: Sequence[str],
    *,
    most: int = MOST_PAIRS,
) -> list[Picture]:
    """Draws test images of the most confused pairs of classes, wrong answers first.

    Args:
        folder: ``RUN/evidence``.
        images: Test images.
        logits: (seeds, N, C).
        classes: C names.
        most: Number of pairs.
    """
    predicted = logits.argmax(axis=2)
    labels = images.labels
    matrix = np.sum([confusion_matrix(row, labels, len(classes)) for row in predicted], axis=0)
    pictures = []
    for number, pair in enumerate(most_confused(matrix, most), start=1):
        rows = []
        for own, other in ((pair.first, pair.second), (pair.second, pair.first)):
            members = np.flatnonzero(labels == own)
            mistaken = (predicted[:, members] == other).sum(axis=0)
            # Images with most wrong answers first, then right ones for comparison.
            order = np.argsort(-mistaken, kind="stable")
            count = min(_MISTAKES, int((mistaken > 0).sum()))
            order = np.r_[order[:count], np.flatnonzero(mistaken == 0)][:_PER_CLASS]
            shown = members[order]
            squares = images.gather(shown) if len(shown) else np.zeros((0, 1, 1, 3), np.uint8)
            rows.append(
                [
                    _framed(square, _MISTAKEN if errors else (255, 255, 255))
                    for square, errors in zip(squares, mistaken[order], strict=True)
                ]
            )
        first, second = classes[pair.first], classes[pair.second]
        pictures.append(
            Picture(
                "confused",
                _save(_grid(rows), folder, f"confused-{number}"),
                f"{first} and {second}",
                f"Test images of {first} (above) and {second} (below). Orange frame: at least one "
                f"seed predicted the other class. {pair.first_as_second} + "
                f"{pair.second_as_first} such answers of all seeds, {100 * pair.share:.0f} % of "
                "the answers for both classes.",
                [first, second],
            )
        )
    return pictures


def group_pictures(folder: Path, dataset: Dataset, groups: NDArray[np.int64]) -> list[Picture]:
    """Draws a contact sheet of training images of every group, the largest groups first.

    Args:
        folder: ``RUN/evidence``.
        dataset: The images.
        groups: (C,) group of every class.
    """
    sizes = np.bincount(groups)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:MOST_GROUPS])
    pictures = []
    for group in shown.tolist():
        members = np.flatnonzero(groups == group)
        picked = members
        if len(members) > _MOST_CLASSES:
            place = np.linspace(0, len(members) - 1, _MOST_CLASSES).round().astype(int)
            picked = members[np.unique(place)]
        per_class = 3 if len(picked) <= 12 else 2
        sheet, _ = contact_sheet(dataset, images_per_class=per_class, classes=picked.tolist())
        some = "" if len(picked) == len(members) else f" {len(picked)} classes are shown."
        pictures.append(
            Picture(
                "group",
                _save(sheet, folder, f"group-{group}"),
                f"Group {group}: {_classes(len(members))}",
                f"Training images of the {_classes(len(members))} that share features in group "
                f"{group}.{some}",
                [dataset.classes[each] for each in members],
                {"group": group},
            )
        )
    return pictures


def choose_for_gradcam(
    logits: NDArray[np.floating], labels: NDArray[np.int64], *, each: int = 10
) -> NDArray[np.int64]:
    """Chooses test images: the most confident errors, and right answers for the same classes.

    Args:
        logits: (N, C) of one model.
        labels: (N,) classes.
        each: Largest number of errors, and of right answers.

    Returns:
        Positions, errors first; each error is of another pair of classes.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    predicted = logits.argmax(axis=1)
    surest = np.argsort(-confidence, kind="stable")
    right = predicted[surest] == labels[surest]
    wrong: dict[tuple[int, int], int] = {}
    for position in surest[~right].tolist():
        wrong.setdefault((int(labels[position]), int(predicted[position])), position)
    mistakes = list(wrong.values())[:each]
    best: dict[int, int] = {}
    for position in surest[right].tolist():
        best.setdefault(int(labels[position]), position)
    wanted = dict.fromkeys([int(labels[position]) for position in mistakes] + list(best))
    answers = [best[label] for label in wanted if label in best][:each]
    return np.asarray([*mistakes, *answers], dtype=np.int64)


def gradcam_picture(
    folder: Path,
    number: int,
    square: NDArray[np.uint8],
    image_size: int,
    heats: Sequence[NDArray[np.float32]],
    *,
    true: str,
    predicted: str,
    further: dict[str, Any],
) -> Picture:
    """Draws one image beside its maps.

    Args:
        folder: ``RUN/evidence``.
        number: Number of the picture.
        square: (S, S, 3) the decoded image.
        image_size: Side of the network's input.
        heats: Maps (h, w) within 0..1: of the discriminative part and, if there is one, of the
            shared part.
        true: Name of its class.
        predicted: Name of the predicted class.
        further: Further keys for ``evidence.json``.
    """
    seen = _as_seen(square, image_size)
    row = [seen, *(_overlaid(seen, heat) for heat in heats)]
    right = true == predicted
    answer = ", predicted correctly" if right else f", predicted as {predicted}"
    legend = f"evidence for {predicted} (discriminative part)"
    if len(heats) > 1:
        legend = f"{legend}; right: evidence for the group of {predicted} (shared part)"
    return Picture(
        "gradcam",
        _save(_grid([row]), folder, f"gradcam-{number:02d}"),
        true if right else f"{true}, predicted as {predicted}",
        f"A test image of {true}{answer}. Left: the image as the network sees it; "
        f"{'middle' if len(heats) > 1 else 'right'}: {legend}. Brighter means more evidence.",
        [true, predicted],
        {"correct": right} | further,
    )


def wrong_picture(
    folder: Path,
    number: int,
    squares: Sequence[NDArray[np.uint8]],
    true: str,
    predicted: str,
    among: Sequence[tuple[int, int]],
    further: dict[str, Any],
) -> Picture:
    """Draws a wrong test image beside the nearest training images of both classes.

    Args:
        folder: ``RUN/evidence``.
        number: Number of the picture.
        squares: The image, and the training images of the predicted and of the true class.
        true: Name of its class.
        predicted: Name of the predicted class.
        among: Of the predicted and of the true class, the number of training images that were
            compared, and that of all there are.
        further: Further keys for ``evidence.json``: ``image``, ``confidence``.
    """
    frames = [_MISTAKEN, (255, 255, 255), (255, 255, 255)]
    row = [_framed(square, frame) for square, frame in zip(squares, frames, strict=True)]
    return Picture(
        "wrong",
        _save(_grid([row]), folder, f"wrong-{number:02d}", _ROW_BYTES),
        f"{true}, predicted as {predicted}",
        f"Left: a test image of {true}, predicted as {predicted} with "
        f"{100 * further['confidence']:.1f} %. Middle: {_nearest(predicted, *among[0])}. "
        f"Right: {_nearest(true, *among[1])}.",
        [true, predicted],
        further,
    )


def _nearest(name: str, compared: int, there: int) -> str:
    if compared == there:
        return f"the nearest of all {there:,} training images of {name}"
    return f"the nearest of {compared:,} of the {there:,} training images of {name}"


def jpeg(image: Image.Image, most: int = MOST_BYTES) -> bytes:
    """Encodes a JPEG of at most `most` bytes: reduces the quality first, then the size."""
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= most or max(image.size) <= 16:
                return buffer.getvalue()
        image = image.resize(
            (max(1, image.width * 4 // 5), max(1, image.height * 4 // 5)), Image.Resampling.LANCZOS
        )


def _save(image: Image.Image, folder: Path, name: str, most: int = MOST_BYTES) -> str:
    write_bytes(folder / f"{name}.jpg", jpeg(image, most))
    return f"{folder.name}/{name}.jpg"


def _classes(count: int) -> str:
    return f"{count} class{'' if count == 1 else 'es'}"


def _as_seen(square: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Returns the centre that `center_crop` cuts out, at the size of a picture."""
    side = len(square)
    kept = side * image_size / square_side(image_size)
    low = (side - kept) / 2
    image = Image.fromarray(square).resize(
        (_CAM_SIDE, _CAM_SIDE), Image.Resampling.BICUBIC, box=(low, low, low + kept, low + kept)
    )
    return np.asarray(image)


def _overlaid(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    large = Image.fromarray(heat).resize((_CAM_SIDE, _CAM_SIDE), Image.Resampling.BILINEAR)
    return blend(image, np.asarray(large))


def _framed(square: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    framed = np.empty((_THUMBNAIL + 2 * _FRAME, _THUMBNAIL + 2 * _FRAME, 3), np.uint8)
    framed[:] = colour
    small = Image.fromarray(square).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = np.asarray(small)
    return framed


def _grid(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """Arranges equal cells in rows, on white."""
    cell = next(cell for row in rows for cell in row)
    height, width = cell.shape[0] + _GAP, cell.shape[1] + _GAP
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * height + _GAP, columns * width + _GAP, 3), 255, np.uint8)
    for top, row in enumerate(rows):
        for left, pixels in enumerate(row):
            y, x = _GAP + top * height, _GAP + left * width
            canvas[y : y + cell.shape[0], x : x + cell.shape[1]] = pixels
    return Image.fromarray(canvas)
