"""Weights & Biases with a server: what it has is compared, and what it lost is sent again.

The server is a stand-in that answers what wandb 0.31 asks, see `tests/wandb_server.py`; the client,
with its process `wandb-core`, is the real one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from gsfl_tune.run import RunDirectory, write_json
from gsfl_tune.run.results import Outcome, Results, Score, write_results
from gsfl_tune.search.observers.tracking import open_trackers, track_run
from tests.search.observers.tracking.lost_calls import Line, Lost
from tests.wandb_server import ENTITY, KEY, StoredRun, WandbServer

PROJECT = "birds"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for folder in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{folder}", str(tmp_path))
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        # Its settings are those of its first use in a process.
        wandb.teardown()
        yield server
        wandb.teardown()
        assert server.unknown == []


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()
    summaries = wandb.sdk.wandb_summary.SummaryDict
    run = wandb.sdk.wandb_run.Run
    line.method(monkeypatch, summaries, "update")
    line.method(monkeypatch, run, "log")
    line.method(monkeypatch, run, "finish")
    line.method(monkeypatch, wandb.Api, "runs")
    for name in ("init", "Api"):
        monkeypatch.setattr(wandb, name, line.through(name, getattr(wandb, name)))
    return line


@pytest.fixture
def copied(finished: RunDirectory, tmp_path: Path) -> Callable[[str], RunDirectory]:
    def copy(name: str) -> RunDirectory:
        return RunDirectory(Path(shutil.copytree(finished.path, tmp_path / name)))

    return copy


def _track(run: RunDirectory) -> None:
    track_run(run, open_trackers(wandb=f"{ENTITY}/{PROJECT}"))


def _own(run: RunDirectory) -> str:
    return str(json.loads((run.path / "tracking.json").read_text())["id"])


def _has(server: WandbServer, run: RunDirectory) -> dict[str, Any]:
    """What the server has of a search, but ids and times of its own."""
    found = {}
    for key, each in server.runs[PROJECT].items():
        search, _, name = key.partition("-")
        if search == _own(run):
            rows = [_plain(row) | {"_step": row["_step"]} for row in each.history]
            config = {name: value for name, value in each.config.items() if name[0] != "_"}
            found[name] = each.name, config, rows, _plain(each.summary), each.exit_code
    return found


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name[0] != "_"}


def test_a_server_gets_every_trial_and_the_answer_once(
    server: WandbServer, copied: Callable[[str], RunDirectory]
) -> None:
    run = copied("run")
    _track(run)
    has = _has(server, run)
    assert set(has) == {"search-0", "search-1", "answer"}
    _, config, rows, summary, code = has["search-0"]
    assert config["trial"] == 0
    assert "training.head.learning_rate" in config
    assert [(row["_step"], row["validation/nll"]) for row in rows] == [(1, 2.0), (2, 1.0)]
    assert (summary["state"], summary["final/validation/nll"], code) == ("COMPLETE", 1.0, 0)
    assert has["search-1"][4] == 1
    assert has["answer"][3]["winner"] == 0
    # What is there is asked for, and not sent again.
    server.asked.clear()
    _track(run)
    assert "Runs" in server.asked
    assert "UpsertBucket" not in server.asked
    assert _has(server, run) == has


@pytest.mark.parametrize("too_late", [False, True])
@pytest.mark.slow
def test_whatever_call_was_lost_the_next_track_completes_it(
    server: WandbServer, line: Line, copied: Callable[[str], RunDirectory], too_late: bool
) -> None:
    def twice(run: RunDirectory) -> None:
        # The second time it asks what is there.
        _track(run)
        _track(run)

    whole = copied("whole")
    with line.broken(None, too_late=False):
        twice(whole)
    calls = list(line.calls)
    assert set(calls) == {"init", "log", "update", "finish", "Api", "runs"}
    wanted = _has(server, whole)
    for at, name in enumerate(calls):
        if too_late and name == "init":
            continue  # W&B itself ends a run whose `init` fails at its end
        if calls[:at].count("init") == 2 and calls[at:].count("init") > 0:
            continue  # the second trial is sent as the first is
        run = copied(f"{at}")
        with line.broken(at, too_late=too_late), pytest.raises(Lost, match=name):
            twice(run)
        _track(run)
        assert _has(server, run) == wanted, (at, name)
        server.asked.clear()
        _track(run)
        assert "UpsertBucket" not in server.asked, (at, name)


def _no_run(server: WandbServer, key: str) -> None:
    del server.runs[PROJECT][key]


def _no_last_epoch(server: WandbServer, key: str) -> None:
    run = server.runs[PROJECT][key]
    del run.history[-1]
    run.summary = {"_step": 1}


def _no_project(server: WandbServer, key: str) -> None:
    server.runs.clear()


@pytest.mark.parametrize(
    "lose",
    [
        _no_last_epoch,
        pytest.param(_no_run, marks=pytest.mark.slow),
        pytest.param(_no_project, marks=pytest.mark.slow),
    ],
)
def test_what_a_server_lost_is_sent_again(
    server: WandbServer,
    copied: Callable[[str], RunDirectory],
    lose: Callable[[WandbServer, str], None],
) -> None:
    run = copied("run")
    _track(run)
    wanted = _has(server, run)
    lose(server, f"{_own(run)}-search-0")
    _track(run)
    assert _has(server, run) == wanted


def test_all_pages_of_an_answer_are_read(
    server: WandbServer, copied: Callable[[str], RunDirectory]
) -> None:
    run = copied("run")
    _track(run)
    own = server.runs[PROJECT]
    group = next(iter(own.values())).group
    others = {f"other-{number}": StoredRun(group=group) for number in range(60)}
    server.runs[PROJECT] = {**others, **own}
    server.asked.clear()
    _track(run)
    assert server.asked.count("Runs") == 2
    assert "UpsertBucket" not in server.asked


def test_a_search_that_went_on_has_its_new_answer(
    server: WandbServer, copied: Callable[[str], RunDirectory]
) -> None:
    run = copied("run")
    _track(run)
    # As the version wrote it that knew of one answer alone.
    content = json.loads(run.tracking_file.read_text())
    content["wandb"]["answer"] = ["COMPLETE", 0]
    write_json(run.tracking_file, content)
    score = {"accuracy": Score.of([0.9, 0.8])}
    outcome = Outcome(config={"a": 2}, validation=score, test=score, seeds=[1, 2], trial=1)
    write_results(run.results_file, Results("tiny", "validation/nll", {"COMPLETE": 2}, outcome))
    _track(run)
    _, config, _, summary, code = _has(server, run)["answer"]
    assert (config, summary["winner"], code) == ({"a": 2}, 1, 0)
    assert summary["test/accuracy"] == pytest.approx(0.85)
    server.asked.clear()
    _track(run)
    assert "UpsertBucket" not in server.asked
