"""The clock of a search stands still between two drivers."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from gsfl_tune.report.charts import SearchCharts
from gsfl_tune.report.clock import SearchClock, in_this_zone
from gsfl_tune.report.files import read_run
from gsfl_tune.report.trials import TrialRecord
from tests.report.runs import RunMaker

NIGHT = 8 * 3600.0


def trial(number, begin, end, value=0.5):
    state = "RUNNING" if end is None else "COMPLETE"
    return TrialRecord("search", number, state, value, begin=begin, end=end)


# Trial 1 was under way when the first driver ended, and ended under the second.
TRIALS = [
    trial(0, 100.0, 160.0),
    trial(1, 150.0, NIGHT + 220.0),
    trial(2, NIGHT + 230, NIGHT + 290),
]
DRIVERS = [{"begin": 95.0, "end": 200.0}, {"begin": NIGHT + 200.0, "end": NIGHT + 300.0}]


def stretch(begin, end, session):
    return {"begin": begin, "end": end, "session": session, "worker": 1, "node": "a"}


STRETCHES = [stretch(100, 160, 0), stretch(150, 200, 0), stretch(NIGHT + 200, NIGHT + 220, 1)]


@pytest.mark.parametrize(
    ("drivers", "stretches"),
    [(DRIVERS, []), (DRIVERS, STRETCHES), ([], STRETCHES), (DRIVERS[1:], STRETCHES)],
    ids=["drivers", "both", "a run of an older version", "begun by an older version"],
)
def test_a_trial_that_spans_the_pause_hides_it_from_nobody(drivers, stretches):
    clock = SearchClock(TRIALS, drivers, stretches)
    assert clock.pauses == [(100.0, NIGHT)]
    assert [clock.at(each.end) for each in TRIALS] == [60.0, 120.0, 190.0]
    assert clock.seconds == 190.0
    # What was not under way in any driver, such as a table written late, is at the mark.
    assert clock.at(5000.0) == 100.0


def test_a_killed_driver_was_there_as_long_as_it_was_heard_of():
    killed = [{"begin": 95.0, "end": 96.0}, DRIVERS[1]]
    assert SearchClock(TRIALS, killed).pauses == [(60.0, NIGHT + 40.0)]
    assert SearchClock(TRIALS, killed, STRETCHES).pauses == [(100.0, NIGHT)]


def test_a_driver_that_goes_on_is_not_interrupted_however_long_nothing_ends():
    trials = [trial(0, 0.0, 10.0), trial(1, 4000.0, 4010.0)]
    assert SearchClock(trials, [{"begin": 0.0, "end": 4010.0}]).pauses == []
    # Where nobody wrote it down, that is all there is to go by.
    assert SearchClock(trials).pauses == [(10.0, 3990.0)]


def test_a_search_that_has_not_gone_on_yet_has_no_pause():
    assert SearchClock(TRIALS[:1], DRIVERS).pauses == []


def with_a_night(maker: RunMaker) -> RunMaker:
    """The first half of the trials, a night, the other half, and one trial across it."""
    table = pd.read_parquet(maker.run.trials_parquet)
    middle = table["started"].sort_values().iloc[10]
    for name in ("started", "finished"):
        late = table[name] >= middle
        table.loc[late, name] += pd.Timedelta(seconds=NIGHT)
    table.loc[table["started"] < middle, "finished"] = table["finished"].where(
        table["started"].rank() != 10, middle + pd.Timedelta(seconds=NIGHT + 1)
    )
    table.to_parquet(maker.run.trials_parquet)
    first, at = table["started"].min().timestamp(), middle.timestamp()
    manifest = json.loads(maker.run.manifest_file.read_text())
    manifest["drivers"] = [
        {"begin": first, "end": at},
        {"begin": at + NIGHT, "end": table["finished"].max().timestamp()},
    ]
    maker.run.manifest_file.write_text(json.dumps(manifest))
    maker.run.workers_file.unlink()
    return maker


@pytest.fixture
def interrupted(tmp_path):
    return with_a_night(RunMaker(tmp_path / "run").begin().search(20))


def test_best_so_far_runs_on_the_clock_of_the_search(interrupted):
    files = read_run(interrupted.path)
    best = SearchCharts(files).to_json()["best"]
    ((at, length),) = best["pauses"]
    assert length == pytest.approx(NIGHT, abs=0.2)
    assert 0 < at < best["seconds"] < 60
    assert all(0 <= dot[0] <= best["seconds"] for dot in best["dots"])
    assert all(
        step[0] <= line["end"] <= best["seconds"]
        for line in best["lines"]
        for step in line["steps"]
    )


@pytest.mark.parametrize("drivers", [None, 3, [1, None], [{"begin": "x"}], [{}]])
def test_a_damaged_list_of_drivers_costs_no_chart(interrupted, drivers):
    manifest = json.loads(interrupted.run.manifest_file.read_text())
    interrupted.run.manifest_file.write_text(json.dumps({**manifest, "drivers": drivers}))
    assert SearchCharts(read_run(interrupted.path)).to_json()["best"]["dots"]


@pytest.fixture
def zone(monkeypatch):
    """Sets the time zone of this process, as another machine would have it."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("there", ["EAST-2", "WEST+5", "NEPAL-5:45"])
@pytest.mark.parametrize("known", ["drivers", "workers"])
def test_another_time_zone_changes_nothing(tmp_path, zone, there, known):
    """The table of trials has local time: read elsewhere, trials ended before they were trained."""
    maker = RunMaker(tmp_path / "run").begin().search(20)
    if known == "drivers":
        with_a_night(maker)
        manifest = json.loads(maker.run.manifest_file.read_text())
        manifest["drivers"][-1]["ending"] = {"state": "interrupted"}
        maker.run.manifest_file.write_text(json.dumps(manifest))
    zone("UTC")
    here = read_run(maker.path)
    zone(there)
    files = read_run(maker.path)
    assert [(t.begin, t.end) for t in files.trials] == [(t.begin, t.end) for t in here.trials]
    best = SearchCharts(files).to_json()["best"]
    assert best == SearchCharts(here).to_json()["best"]
    assert len(best["pauses"]) == (known == "drivers")


def test_a_long_preparation_and_a_killed_driver_are_no_time_zone():
    """The first trial came two hours after its driver, whose end was not written."""
    trials = [trial(0, 7300.0, 8000.0)]
    assert in_this_zone(trials, [{"begin": 100.0, "end": 101.0}], []) == trials
    # Nor is a worker that ended a little after its trial.
    worked = {**stretch(7310.0, 8200.0, 0), "study": "search", "trial": 0}
    assert in_this_zone(trials, [{"begin": 100.0, "end": 101.0}], [worked]) == trials
