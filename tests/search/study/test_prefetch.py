from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, TrialCosts, open_study
from gsfl_tune.search.costs.relative_price import RelativePrice
from gsfl_tune.search.study import prefetch as ahead_module
from tests import warm
from tests.search.experiments import experiment
from tests.waiting import wait_until

FIRST = 4


@pytest.fixture(autouse=True)
def _ahead_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "FIRST", {"tpe": FIRST, "gp": FIRST, "cmaes": FIRST})


@pytest.fixture
def opened() -> Iterator[Any]:
    studies: list[Study] = []

    def open_it(run: RunDirectory, *overrides: str) -> Study:
        tried = experiment("search.sampler.startup_trials=3", *overrides)
        studies.append(open_study(tried, run, ahead=True))
        return studies[-1]

    yield open_it
    for study in studies:
        study.close()


def _objective(params: dict[str, Any]) -> float:
    return float(params["model.latent_dim"]) / 32 + float(params["model.dropout"])


def _end(study: Study, number: int, params: dict[str, Any]) -> None:
    if number % 4 == 3:
        study.prune(number, _objective(params), 0)
    else:
        study.complete(number, _objective(params), 0)


def _search(study: Study, trials: int) -> list[dict[str, Any]]:
    seen = []
    for _ in range(trials):
        asked = study.ask()
        assert asked is not None
        seen.append(asked.params)
        _end(study, asked.number, asked.params)
    return seen


def _child(study: Study) -> subprocess.Popen[str]:
    process = study._ahead._process  # type: ignore[union-attr]
    assert process is not None
    return process


def test_an_interrupted_study_gets_the_proposals_of_an_uninterrupted_one(
    tmp_path: Path, opened: Any
) -> None:
    study = opened(RunDirectory(tmp_path / "whole"))
    whole = _search(study, 9)
    # Two at a time: what ends meanwhile is not known to a proposal that was begun before.
    first, second = study.ask(), study.ask()
    _end(study, first.number, first.params)
    whole += [first.params, second.params, study.ask().params]
    run = RunDirectory(tmp_path / "parts")
    study = opened(run)
    parts = _search(study, 5)
    # Killed while trial 5 was under way, after its first rung.
    asked = study.ask()
    parts.append(asked.params)
    study.report(5, 0, 1.0)
    study.close()
    study = opened(run)
    assert study.again(5).params == parts[5]
    _end(study, 5, parts[5])
    parts += _search(study, 2)
    # Killed between the end of a trial and the next one.
    study.close()
    study = opened(run)
    parts += _search(study, 1)
    first, second = study.ask(), study.ask()
    _end(study, first.number, first.params)
    # Killed between the end of one of two and the next one.
    study.close()
    study = opened(run)
    assert study.again(second.number).params == second.params
    parts += [first.params, second.params, study.ask().params]
    assert parts == whole


@pytest.mark.parametrize("name", [pytest.param("gp", marks=pytest.mark.slow), "cmaes"])
def test_models_of_a_fixed_space_are_asked_ahead_too(
    run: RunDirectory, opened: Any, name: str
) -> None:
    study = opened(run, f"search.sampler.name={name}")
    seen = _search(study, FIRST + 1)
    assert _child(study).poll() is None
    assert all(set(params) == study.space.active(params) for params in seen)


def test_what_was_proposed_ahead_is_drawn_again_where_it_costs_too_much(run: RunDirectory) -> None:
    tried = experiment(
        "search.sampler.startup_trials=3",
        "search.sampler.cost_ratio=1",
        "model.latent_dim={int: [8, 4096], log: true, default: 32}",
    )
    costs = TrialCosts(train=6000, validation=1000, classes=90)
    price = RelativePrice(tried, costs)
    spent = []
    for known in (None, costs):
        study = open_study(
            tried, RunDirectory(run.path / str(known is None)), ahead=True, costs=known
        )
        try:
            seen = []
            for _ in range(FIRST + 12):
                asked = study.ask()
                assert asked is not None
                seen.append(price(asked.params))
                study.complete(asked.number, float(asked.params["model.latent_dim"]), 0)
            assert _child(study).poll() is None
        finally:
            study.close()
        spent.append(sum(seen[FIRST:]))
    assert spent[1] < 0.7 * spent[0]


def test_a_proposal_is_decided_when_the_trial_before_it_is_handed_out(
    tmp_path: Path, opened: Any
) -> None:
    next_ones = []
    # The best of all, or the worst.
    for value in (-9.0, 9.0):
        study = opened(RunDirectory(tmp_path / str(value)))
        _search(study, FIRST)
        last = study.ask()
        # What becomes of this trial comes too late for the next, and not for the one after.
        study.complete(last.number, value, 0)
        next_ones.append([study.ask().params, study.ask().params])
    assert next_ones[0][0] == next_ones[1][0]
    assert next_ones[0][1] != next_ones[1][1]


def test_enqueued_configurations_still_come_first(run: RunDirectory, opened: Any) -> None:
    study = opened(run)
    _search(study, FIRST + 2)
    params = experiment().default_params() | {"model.latent_dim": 8}
    study.enqueue(params, "enqueue[0]")
    asked = study.ask()
    assert asked.params == params
    assert asked.protected
    assert study.ask().number == asked.number + 1
    assert not study.trials()[-1].user_attrs


def test_when_the_process_dies_the_driver_asks_itself_and_says_so(
    run: RunDirectory, opened: Any
) -> None:
    study = opened(run)
    notices: list[str] = []
    study.on_loss(notices.append)
    _search(study, FIRST + 2)
    os.kill(_child(study).pid, signal.SIGKILL)
    seen = _search(study, 4)
    assert len(seen) == 4
    assert len(study.trials()) == FIRST + 6
    assert study.counts()["RUNNING"] == 0
    assert len(notices) == 1
    assert "no longer" in notices[0]


def test_a_trial_that_was_proposed_ahead_is_one_record_of_the_journal(
    run: RunDirectory, opened: Any
) -> None:
    study = opened(run)
    _search(study, FIRST)
    before = run.journal.stat().st_size
    study.ask()
    study.close()
    records = [json.loads(line) for line in run.journal.read_bytes()[before:].splitlines()]
    trial = study.trials()[-1]
    assert [list(record["params"]) for record in records] == [list(trial.params)]
    assert open_study(experiment("search.sampler.startup_trials=3"), run).trials()[-1] == trial


def test_the_process_ends_with_a_driver_that_is_killed(run: RunDirectory) -> None:
    code = (
        "import sys\n"
        "from gsfl_tune.run import RunDirectory\n"
        "from gsfl_tune.search import open_study\n"
        "from gsfl_tune.search.study import prefetch as ahead\n"
        "from tests.search.experiments import experiment\n"
        "ahead.FIRST = {'tpe': 1}\n"
        "study = open_study(experiment(), RunDirectory(sys.argv[1]), ahead=True)\n"
        "study.ask(); study.ask()\n"
        "print(study._ahead._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    driver = warm.start([run.path], code=code)
    child = psutil.Process(int(driver.stdout.readline()))
    assert child.is_running()
    driver.kill()
    driver.communicate()
    wait_until(
        lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE,
        "the process has ended",
        timeout=10,
    )
