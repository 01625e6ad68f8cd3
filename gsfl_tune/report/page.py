"""The page: one HTML file with its styles, scripts, data and pictures inside."""

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

from gsfl_tune.report import model
from gsfl_tune.report.answer import SCORE_TITLES, answer, format_metric, listed
from gsfl_tune.report.charts import SearchCharts, page_data
from gsfl_tune.report.files import RunFiles, read_run
from gsfl_tune.report.pictures import load_pictures
from gsfl_tune.report.rungs import rank_correlations, values_by_rung
from gsfl_tune.report.tables import duration, show
from gsfl_tune.report.trials import failures
from gsfl_tune.run import RunDirectory, write_text

SCRIPTS = ("draw.js", "search.js", "parallel.js", "model.js", "page.js")


def write_report(run: str | Path, target: Path | None = None) -> Path:
    """Writes the page of a run.

    Args:
        run: The run directory; the run may be under way.
        target: Where to; default ``RUN/report.html``.

    Returns:
        The file.

    Raises:
        UserError: If it is no run directory, or its results or table of trials are damaged.
        OSError: If the file cannot be written.
    """
    target = target or RunDirectory(run).path / "report.html"
    write_text(target, render(read_run(run)))
    return target


def render(files: RunFiles, *, live: bool = False, version_of_run: str = "") -> str:
    """The page.

    Args:
        files: The run.
        live: Whether the page asks its server for news (``gsfl-tune watch``).
        version_of_run: What the server calls this state of the run.
    """
    style, script = static_text("report.css"), "\n".join(map(static_text, SCRIPTS))
    search = SearchCharts(files)
    pictures = load_pictures(files.run.path, files.part("pictures")[0])
    return (
        _environment()
        .get_template("page.html")
        .render(
            name=files.results.name,
            finished=files.results.finished,
            metric=files.results.metric,
            live=live,
            version_of_run=version_of_run,
            policy=content_policy(script, live=live),
            style=Markup(style),
            script=Markup(script),
            data=_embedded(page_data(files, search)),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            version=version("gsfl-tune"),
            run_path=str(files.run.path),
            answer=answer(files),
            score_titles=SCORE_TITLES,
            search=search,
            correlations=rank_correlations(values_by_rung(search.trials)) if search.rungs else [],
            failures=failures(files.trials),
            trials=files.trials,
            parameters=[axis["name"] for axis in search.axes],
            part=files.part,
            classes=model.class_rows(files),
            pairs=model.pairs(files, pictures),
            class_groups=model.class_groups(files, pictures),
            pictures=pictures,
            grouped=bool(model.groups_of(files)),
            confusion=model.confusion_chart(files) is not None,
            confusion_groups=model.group_confusion_chart(files) is not None,
            map=model.map_chart(files),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gsfl_tune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": _share,
        "duration": duration,
        "show": show,
        "listed": listed,
        "number": lambda value: "–" if value is None else f"{value:.4g}",
    }
    environment.globals["metric_value"] = format_metric
    return environment


@cache
def static_text(name: str) -> str:
    """Text of a style or script beside the page."""
    return (package_files("gsfl_tune.report") / "static" / name).read_text(encoding="utf-8")


def content_policy(script: str, *, live: bool) -> str:
    """Nothing is fetched, and no script runs but ours, whatever a class may be called."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _embedded(data: Mapping[str, Any]) -> Markup:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
