from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.telemetry import open_telemetry
from gsfl_tune.search.observers.telemetry.prometheus import PrometheusPage
from tests.search.experiments import experiment, searched

DASHBOARD = Path(__file__).parents[4] / "clusters" / "grafana.json"


@pytest.fixture
def page() -> Iterator[PrometheusPage]:
    (page,) = open_telemetry(metrics="0", run="tiny", notice=lambda text: None)
    assert isinstance(page, PrometheusPage)
    yield page
    page.close()


def read(page: PrometheusPage) -> dict[str, float]:
    text = urllib.request.urlopen(page.url, timeout=10).read().decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in pairs}


def drive(page: PrometheusPage, run: RunDirectory) -> None:
    """Two trials of three: one came to its end, one was stopped."""
    study = open_study(experiment(), run)
    page.begin(study, 3, 2)
    page.expects(lambda: 42.0)
    for value in (0.5, 0.9):
        asked = study.ask()
        assert asked is not None
        page.proposed(0.02)
        page.started(asked.number, asked.params, again=False)
        study.report(asked.number, 0, value)
        page.occupied({"checkpoint_seconds": 0.25}, 3.0)
        page.rung(asked.number, 0, value)
    study.complete(0, 0.4, 1)
    page.ended(0)
    study.prune(1, 0.9, 0)
    page.ended(1)
    page.job_ended("winner", {"seconds": 1.0})
    page.job_ended("control", {"failed": "no"})
    study.close()


def test_prometheus_reads_what_the_search_does(page: PrometheusPage, run: RunDirectory) -> None:
    assert page.url.startswith("http://127.0.0.1:")
    drive(page, run)
    found = read(page)
    assert found['gsfl_tune_trials{state="COMPLETE",study="search"}'] == 1
    assert found['gsfl_tune_trials{state="PRUNED",study="search"}'] == 1
    assert found['gsfl_tune_trials_budget{study="search"}'] == 3
    assert found['gsfl_tune_trials_queue{study="search"}'] == 1
    assert found['gsfl_tune_best_value{metric="validation/nll",study="search"}'] == 0.4
    assert found['gsfl_tune_rungs_total{study="search"}'] == 2
    assert found["gsfl_tune_seconds_left"] == 42
    assert found["gsfl_tune_slots"] == 2
    assert found["gsfl_tune_slot_busy_seconds_total"] == 6
    assert found["gsfl_tune_proposal_seconds_count"] == 2
    assert found["gsfl_tune_checkpoint_seconds_sum"] == 0.5
    assert found['gsfl_tune_retrains_total{outcome="failed"}'] == 1


@pytest.mark.slow
def test_a_real_search_tells_it(
    page: PrometheusPage, run: RunDirectory, ray_of_tests: None, two_slots: Slots, cache_dir: Path
) -> None:
    made = experiment("search.trials=4", "search.scheduler.reduction=2")
    options = {"resources": two_slots, "cache_dir": cache_dir, "save_seconds": 0}
    trials = searched(made, run, watchers=[page], **options).study.trials()
    found = read(page)
    for state in ("COMPLETE", "PRUNED"):
        name = f'gsfl_tune_trials{{state="{state}",study="search"}}'
        assert found.get(name, 0) == sum(trial.state.name == state for trial in trials)
    best = min(trial.value for trial in trials if trial.state.name == "COMPLETE")
    assert found['gsfl_tune_best_value{metric="validation/nll",study="search"}'] == best
    assert found['gsfl_tune_trials_queue{study="search"}'] == 0
    assert found["gsfl_tune_proposal_seconds_count"] == 4
    assert 0 < found["gsfl_tune_proposal_seconds_sum"] < 60
    rungs = sum(len(trial.intermediate_values) for trial in trials)
    assert found['gsfl_tune_rungs_total{study="search"}'] == rungs
    assert found["gsfl_tune_checkpoint_seconds_count"] == rungs
    assert found["gsfl_tune_checkpoint_seconds_sum"] > 0
    assert found["gsfl_tune_slots"] == 2
    assert found["gsfl_tune_slot_busy_seconds_total"] > found["gsfl_tune_checkpoint_seconds_sum"]


def test_the_dashboard_asks_for_numbers_that_there_are(
    page: PrometheusPage, run: RunDirectory
) -> None:
    drive(page, run)
    there = {name.partition("{")[0] for name in read(page)}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    names = {name for expr in asked for name in re.findall(r"gsfl_tune_[a-z_]+", expr)}
    assert names <= there
    # Nothing that the page has for itself is left out.
    assert {name for name in there if name.endswith("_seconds_bucket")} <= names
    # Panels do not lie on each other.
    places = [panel["gridPos"] for panel in panels]
    cells = {(x, y) for p in places for x in range(p["x"], p["x"] + p["w"])
             for y in range(p["y"], p["y"] + p["h"])}  # fmt: skip
    assert len(cells) == sum(p["w"] * p["h"] for p in places)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("text", ["x", "127.0.0.1:x", ":9000", "70000", "127.0.0.1:-1"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--metrics .*allowed PORT or HOST:PORT"):
        open_telemetry(metrics=text, run="tiny", notice=lambda text: None)


def test_a_port_in_use_is_refused_with_the_reason(page: PrometheusPage) -> None:
    port = page.url.split(":")[2].split("/")[0]
    with pytest.raises(UserError, match=rf"--metrics 127.0.0.1:{port}: .*in use"):
        open_telemetry(metrics=port, run="tiny", notice=lambda text: None)
