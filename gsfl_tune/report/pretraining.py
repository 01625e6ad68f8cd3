"""The HTML page of a pretraining: what the features were worth, and what they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from gsfl_tune.experiment.metrics import VALIDATION, of_part
from gsfl_tune.report.page import embedded, environment, policy, static

SCRIPTS = ("draw.js", "compare.js", "pretraining.js", "page.js")
# In their order on the page; what else there is follows.
_TITLES = {
    "linear_probe": "linear probe",
    "knn_20": "kNN, k 20",
    "knn_200": "kNN, k 200",
    "retrieval_top1": "retrieval, top 1",
    "retrieval_top5": "retrieval, top 5",
    "retrieval_map": "retrieval, mAP",
}
_TERMS = ("loss", "base", "reconstruction", "pair", "screening", "spread", "projected")


@dataclass(frozen=True)
class Pictures:
    """Holds the pictures of one image, each as a ``data:`` URL, or None.

    Attributes:
        name: Name of its file.
        image: The image as the backbone sees it.
        before: Grad-CAM of the agreement with its mirror image, before the training.
        after: The same, after it.
        original: What the decoder makes of its representation.
        perturbed: What it makes of the representation with other values in the dimensions that do
            not discriminate.
    """

    name: str
    image: str | None
    before: str | None
    after: str | None
    original: str | None
    perturbed: str | None


@dataclass(frozen=True)
class Dimensions:
    """Holds the statistics of the dimensions at the end.

    Attributes:
        variance: (C,) variance over the data.
        importance: (C,) Grad-CAM importance to the loss.
        chosen: (C,) whether the dimension does not discriminate.
    """

    variance: Sequence[float]
    importance: Sequence[float]
    chosen: Sequence[bool]


def pretraining_page(
    name: str,
    facts: Mapping[str, str],
    records: Sequence[Mapping[str, Any]],
    *,
    pictures: Sequence[Pictures] = (),
    dimensions: Dimensions | None = None,
) -> str:
    """Makes the page: one HTML file that loads nothing from elsewhere.

    Args:
        name: Name of the experiment.
        facts: What was trained, title to text.
        records: Records of the epochs, the first one of the backbone before any.
        pictures: Pictures of some validation images.
        dimensions: Statistics of the dimensions, where they are kept.
    """
    script = "\n".join(map(static, SCRIPTS))
    judged = [(each["epoch"], of_part(VALIDATION, each)) for each in records]
    judged = [(epoch, found) for epoch, found in judged if found]
    names = list(dict.fromkeys(key for _, found in judged for key in found))
    names.sort(key=lambda key: (*_TITLES, key).index(key))
    terms = [key for key in _TERMS if any(f"train/{key}" in each for each in records)]
    return (
        environment()
        .get_template("pretraining.html")
        .render(
            name=name,
            facts=facts,
            rows=[_row(key, judged) for key in names],
            epochs=judged[-1][0] if judged else 0,
            terms=terms,
            pictures=pictures,
            heated=any(each.after for each in pictures),
            decoded=any(each.original for each in pictures),
            dimensions=dimensions,
            left=sum(dimensions.chosen) if dimensions else 0,
            policy=policy(script),
            style=Markup(static("report.css") + static("compare.css")),
            script=Markup(script),
            data=embedded(
                {
                    "judged": [
                        {"name": _title(key), "points": _points(judged, key)} for key in names
                    ],
                    "terms": [
                        {
                            "name": key,
                            "points": [
                                [each["epoch"], float(f"{each[f'train/{key}']:.5g}")]
                                for each in records
                                if f"train/{key}" in each
                            ],
                        }
                        for key in terms
                    ],
                    "dimensions": _dots(dimensions),
                }
            ),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            version=version("gsfl-tune"),
        )
    )


def _title(key: str) -> str:
    part, _, last = key.rpartition("/")
    return _TITLES.get(last, last.replace("_", " ")) + (f", {part}" if part else "")


def _points(judged: Sequence[tuple[int, Mapping[str, float]]], key: str) -> list[tuple[int, float]]:
    return [(epoch, float(f"{found[key]:.5g}")) for epoch, found in judged if key in found]


def _row(key: str, judged: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Any]:
    points = _points(judged, key)
    before = points[0][1] if points[0][0] == 0 else None
    best = max(points, key=lambda point: point[1])
    return {
        "title": _title(key),
        "before": before,
        "after": points[-1][1],
        "gain": None if before is None else 100 * (points[-1][1] - before),
        "best": best[1],
        "best_epoch": best[0],
    }


def _dots(dimensions: Dimensions | None) -> list[list[float]]:
    if dimensions is None:
        return []
    rows = zip(dimensions.variance, dimensions.importance, dimensions.chosen, strict=True)
    return [[float(f"{v:.4g}"), float(f"{i:.4g}"), int(chosen)] for v, i, chosen in rows]
