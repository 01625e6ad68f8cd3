"""The report page: one HTML file that contains its styles, scripts, data and pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gsfl_tune.experiment.metrics import METRIC_TITLES
from gsfl_tune.report import model
from gsfl_tune.report.answer import answer, format_metric, listed
from gsfl_tune.report.charts import SearchCharts, page_data
from gsfl_tune.report.files import RunFiles, read_run
from gsfl_tune.report.pictures import load_pictures
from gsfl_tune.report.rungs import rank_correlations, values_by_rung
from gsfl_tune.report.tables import duration, show
from gsfl_tune.report.training import training_curves
from gsfl_tune.report.trials import failures
from gsfl_tune.report.wrong import wrong_images
from gsfl_tune.run import RunDirectory, write_text

SCRIPTS = (
    "draw.js",
    "search.js",
    "training.js",
    "parallel.js",
    "matrix.js",
    "model.js",
    "page.js",
)


def write_report(run: str | Path, target: Path | None = None) -> Path:
    """Writes the page of a run.

    Args:
        run: The run directory; the run may still be running.
        target: The file to write; default ``RUN/report.html``.

    Returns:
        The file.

    Raises:
        UserError: If it is not a run directory, or its results or table of trials are damaged.
        OSError: If the file cannot be written.
    """
    target = target or RunDirectory(run).path / "report.html"
    write_text(target, render(read_run(run)))
    return target


def render(files: RunFiles, *, live: bool = False, version_of_run: str = "") -> str:
    """Renders the page.

    Args:
        files: The run.
        live: Whether the page polls its server for changes (``gsfl-tune watch``).
        version_of_run: The server's name for this state of the run.
    """
    style, script = static("report.css"), "\n".join(map(static, SCRIPTS))
    search = SearchCharts(files)
    training = training_curves(files)
    pictures = load_pictures(files.run.path, files.part("pictures")[0])
    return (
        environment()
        .get_template("page.html")
        .render(
            name=files.results.name,
            finished=files.results.finished,
            metric=files.results.metric,
            live=live,
            version_of_run=version_of_run,
            policy=policy(script, live=live),
            style=Markup(style),
            script=Markup(script),
            data=embedded(page_data(files, search, training)),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            version=version("gsfl-tune"),
            run_path=str(files.run.path),
            answer=answer(files),
            score_titles=tuple(METRIC_TITLES.values()),
            search=search,
            training=training,
            correlations=rank_correlations(values_by_rung(search.trials)) if search.rungs else [],
            failures=failures(files.trials),
            trials=files.trials,
            parameters=[axis["name"] for axis in search.axes],
            part=files.part,
            classes=model.class_rows(files),
            pairs=model.pairs(files, pictures),
            class_groups=model.class_groups(files, pictures),
            no_groups=model.no_groups(files),
            pictures=pictures,
            grouped=bool(model.groups_of(files)),
            confusion=model.confusion_chart(files) is not None,
            confusion_groups=model.group_confusion_chart(files) is not None,
            map=model.map_chart(files),
            wrong=wrong_images(files),
        )
    )


@cache
def environment() -> Environment:
    """Returns the Jinja environment of all pages."""
    made = Environment(
        loader=PackageLoader("gsfl_tune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "share": _share,
        "duration": duration,
        "show": show,
        "listed": listed,
        "number": lambda value: "–" if value is None else f"{value:.4g}",
        # No line begins with the sign of the number before.
        "unbroken": lambda text: text.replace(" %", "\u00a0%"),
    }
    made.globals["metric_value"] = format_metric
    return made


@cache
def static(name: str) -> str:
    """Reads a style sheet or script of the package."""
    return (package_files("gsfl_tune.report") / "static" / name).read_text(encoding="utf-8")


def policy(script: str, *, live: bool = False) -> str:
    """Returns a policy that allows this script only, and no requests, whatever class names hold."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def embedded(data: Mapping[str, Any]) -> Markup:
    """Encodes JSON for a script element: nothing in it can close the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
