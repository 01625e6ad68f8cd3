"""Run directories in three states: begun, under way, finished."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import (
    SEEDS_AND_IMAGES,
    Difference,
    Finalist,
    Interval,
    Outcome,
    Probe,
    Results,
    Score,
    write_results,
)
from tests.report.browser import Visit, launched


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture
def visit_page(browser, tmp_path):
    """Opens a page that is given as text."""
    visits = []

    def go(page: str, **options: object) -> Visit:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        visits.append(Visit(browser, file.as_uri(), **options))
        return visits[-1]

    yield go
    for each in visits:
        each.close()


EXPERIMENT = """\
name: birds
data: {source: typefaces}
search: {metric: validation/nll, trials: 4}
"""


def scores(*accuracies: float, nll: float | None = None) -> dict[str, Score]:
    names = ("accuracy", "balanced_accuracy", "top5", "nll", "ece")
    found = {name: Score.of(accuracies) for name in names}
    return found if nll is None else found | {"nll": Score.of([nll])}


def make_results(**changes: object) -> Results:
    config = {"model": {"backbone": "tf_efficientnet_lite0"}}
    content = {
        "name": "birds",
        "metric": "validation/nll",
        "trials": {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1, "RUNNING": 0},
        "winner": Outcome(
            config=config,
            validation=scores(0.8, 0.82),
            test=scores(0.7, 0.74, 0.72),
            seeds=[0, 1, 2],
            params={"model.groups.count": 12, "loss.shared_center": 0.07512345},
            trial=1,
            interval=Interval(0.681, 0.754, method=SEEDS_AND_IMAGES),
        ),
        "control": Outcome(
            config=config,
            validation=scores(0.78, nll=0.9),
            test=scores(0.71, 0.7, 0.69),
            seeds=[0, 1, 2],
            trial=3,
            kind="tuned",
        ),
        "difference": Difference(0.02, Interval(-0.01, 0.05)),
        "probe": Probe(
            scores(0.65),
            Difference(0.07, Interval(0.02, 0.12, method=SEEDS_AND_IMAGES)),
            scores(0.7, nll=0.95),
        ),
        "finalists": [Finalist(1, scores(0.8)), Finalist(0, scores(0.79))],
        "groups": {"gull": 0, "tern": 0},
        "cost": {"seconds": {"search": 200.0, "retrain": 3700.0, "total": 3900.0}},
    }
    return Results(**{**content, **changes})


@pytest.fixture
def begun(tmp_path) -> Path:
    run = RunDirectory(tmp_path / "a run")
    run.path.mkdir()
    run.experiment_file.write_text(EXPERIMENT)
    return run.path


@pytest.fixture
def under_way(begun) -> Path:
    rows = [
        ("search", 0, "COMPLETE", 1.5, 8, 0.1),
        ("search", 1, "COMPLETE", 0.5, 12, 0.2),
        ("search", 2, "PRUNED", None, None, 0.3),
        ("search", 3, "FAIL", None, 4, 0.4),
        ("search", 4, "RUNNING", None, 4, None),
        ("control", 0, "COMPLETE", 0.1, None, 0.5),
    ]
    columns = ["study", "number", "state", "value", "params.model.groups.count"]
    columns.append("params.loss.shared_center")
    pd.DataFrame(rows, columns=columns).to_parquet(RunDirectory(begun).trials_parquet)
    return begun


@pytest.fixture
def finished(under_way) -> Path:
    run = RunDirectory(under_way)
    write_results(run.results_file, make_results())
    run.best.mkdir()
    return under_way
