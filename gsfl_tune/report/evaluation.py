"""The HTML page of an evaluation: metrics, classes and wrong images of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from gsfl_tune.experiment.metrics import FURTHER_TITLES, VALIDATION, metric_of
from gsfl_tune.plugins import PluginError
from gsfl_tune.report.page import embedded, environment, policy, static

SCRIPTS = ("draw.js", "matrix.js", "model.js", "page.js")
# Limits the size of the page; `--json` and `--csv` list all wrong images.
MOST_WRONG = 500
_MOST_PAIRS = 20
# A matrix of more classes is too large to read.
_MOST_DRAWN = 200
_TITLES = {
    **FURTHER_TITLES,
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5": "top-5 accuracy",
    "nll": "negative log-likelihood",
    "ece": "expected calibration error",
}


def evaluation_page(
    content: Mapping[str, Any], *, bundle: str, source: str, pictures: Sequence[str] = ()
) -> str:
    """Makes the page: one HTML file that loads nothing from elsewhere.

    Args:
        content: What ``gsfl-tune evaluate --json`` prints.
        bundle: Name of the evaluated bundle.
        source: Name of the image source.
        pictures: ``data:`` URLs of the first wrong images, in the order of `content`.
    """
    script = "\n".join(map(static, SCRIPTS))
    matrix = content["confusion"]["matrix"]
    classes = content["confusion"]["classes"]
    wrong = content["wrong_images"]
    return (
        environment()
        .get_template("evaluation.html")
        .render(
            bundle=bundle,
            source=source,
            content=content,
            metrics=[
                (_TITLES.get(name, name), shown(name, v)) for name, v in content["metrics"].items()
            ],
            rows=sorted(content["per_class"], key=_worst_first),
            pairs=content["most_confused"][:_MOST_PAIRS],
            drawn=len(classes) <= _MOST_DRAWN,
            wrong=wrong[:MOST_WRONG],
            pictured=list(zip(wrong, pictures, strict=False)),
            policy=policy(script),
            style=Markup(static("report.css")),
            script=Markup(script),
            data=embedded({"confusion": _matrix(classes, matrix)}),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            version=version("gsfl-tune"),
        )
    )


def shown(name: str, value: float) -> str:
    """Formats a metric for reading."""
    try:
        share = metric_of(f"{VALIDATION}/{name}").is_share
    except PluginError:
        share = False
    return f"{100 * value:.2f} %" if share else f"{value:.4f}"


def _worst_first(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    recall = row["recall"]
    return recall is None, recall or 0.0, row["name"]


def _matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> dict[str, Any] | None:
    if len(classes) > _MOST_DRAWN:
        return None
    cells = [
        [row, column, count]
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count
    ]
    return {"labels": list(classes), "cells": cells, "edges": [], "groups": [None] * len(classes)}
