"""The HTML page of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from markupsafe import Markup, escape

from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report.page import embedded, environment, policy, static
from gsfl_tune.report.results import begun
from gsfl_tune.report.tables import duration
from gsfl_tune.report.trials import Curve
from gsfl_tune.run.results import SEEDS_AND_IMAGES
from gsfl_tune.run.verdict import points

SCRIPTS = ("draw.js", "compare.js", "page.js")


def comparison_page(content: Mapping[str, Any], curves: Sequence[Curve]) -> str:
    """Makes the page: one HTML file that loads nothing from elsewhere.

    Args:
        content: What ``gsfl-tune compare --json`` prints.
        curves: The learning curve of each run's winner.
    """
    script = "\n".join(map(static, SCRIPTS))
    metric = metric_of(content["metric"])
    runs = content["runs"]
    same_metric = len({run["metric"] for run in runs}) == 1
    pages = environment()
    pages.filters.setdefault("breakable", _breakable)
    compared = [each for each in content["differences"] if each["mean"] is not None]
    return pages.get_template("comparison.html").render(
        content=content,
        runs=[_row(run) for run in runs],
        names=[run["name"] for run in runs],
        metric=content["metric"],
        curved=[run["name"] for run, curve in zip(runs, curves, strict=True) if curve.values],
        progressed=same_metric and any(run["best_so_far"] for run in runs),
        same_metric=same_metric,
        compared=compared,
        covered=_covered(compared),
        policy=policy(script),
        style=Markup(static("report.css") + static("compare.css")),
        script=Markup(script),
        data=embedded(
            {
                "names": [run["name"] for run in runs],
                "metric": content["metric"],
                "percent": metric.is_share,
                "curves": [_curve(curve) for curve in curves],
                "progress": [
                    {"steps": run["best_so_far"], "end": run["search_seconds"]} for run in runs
                ],
                "differences": [
                    {
                        "run": run["run"],
                        "against": run["against"],
                        "mean": run["mean"],
                        "low": run["interval"]["low"],
                        "high": run["interval"]["high"],
                        # As in the text: an end that is not 0 is not shown as 0.
                        "told": [
                            points(run["mean"]),
                            points(run["interval"]["low"]),
                            points(run["interval"]["high"]),
                        ],
                        "method": run["interval"]["method"],
                    }
                    for run in compared
                ],
            }
        ),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        version=version("gsfl-tune"),
    )


def _covered(compared: Sequence[Mapping[str, Any]]) -> str:
    """Says what the intervals of the differences cover."""
    alone = [each["run"] for each in compared if each["interval"]["method"] != SEEDS_AND_IMAGES]
    if not alone:
        return "over seeds and test images"
    if len(alone) == len(compared):
        return "over the test images alone: what another training would change is not known"
    return f"over seeds and test images, for {', '.join(alone)} over the test images alone"


def _breakable(path: str) -> Markup:
    """Lets a browser break a dotted path behind a dot or an underscore."""
    text = str(escape(path))
    return Markup(text.replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **run,
        "begun": begun(run["trials"]),
        "best": metric_of(run["metric"]).text(run["best"]),
        "time": duration(run["search_seconds"]) if run["search_seconds"] else "–",
    }


def _curve(curve: Curve) -> dict[str, Any]:
    points = curve.thinned([curve.before] if curve.before else [])
    return {
        "points": [[epoch, float(f"{value:.5g}")] for epoch, value in points],
        "head": curve.before,
    }
