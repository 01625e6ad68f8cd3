"""What is read of trials: states, curves, reasons."""

from __future__ import annotations

import pandas as pd

from gsfl_tune.report.charts import SearchCharts
from gsfl_tune.report.files import CurveReader, read_run
from gsfl_tune.report.trials import Curve, TrialRecord, best_so_far, failures
from tests.report.runs import RunMaker


def test_a_trial_is_what_its_files_say(tmp_path):
    run = RunMaker(tmp_path / "run").begin().search(trials=12, running=1)
    trials = read_run(run.path).study("search")
    assert [t.number for t in trials] == list(range(12))
    failed, finished, running = trials[0], trials[3], trials[11]
    assert (failed.state, failed.last) == ("FAIL", failed.curve.values[-1])
    assert (finished.state, finished.epochs, len(finished.curve.values)) == ("COMPLETE", 27, 27)
    assert finished.last == finished.value == finished.rungs[2]
    assert (running.state, running.value, running.end) == ("RUNNING", None, None)
    assert running.last == running.rungs[0]
    assert all(
        ("model.groups.count" in t.params) == (t.params["model.groups.method"] == "kmeans")
        for t in trials
    )


def test_tables_of_an_older_version_are_read(under_way):
    trials = read_run(under_way).trials
    assert (trials[0].study, trials[0].state, trials[1].study) == ("control", "COMPLETE", "search")
    assert all(t.rungs == {} and t.begin is None for t in trials)


def test_a_curve_is_read_again_when_its_file_has_changed(tmp_path):
    run = RunMaker(tmp_path / "run").begin()
    run.epochs(0, [0.1, 0.2])
    path = run.run.trial("search", 0) / "epochs.jsonl"
    reader = CurveReader()
    assert reader.read(path, "validation/accuracy").values == (0.1, 0.2)
    with path.open("a") as file:
        file.write('{"epoch": 3, "stage": "finetune", "validation/accuracy": 0.3}\n{"epoch": 4')
    found = reader.read(path, "validation/accuracy")
    assert (found.values, found.before) == ((0.1, 0.2, 0.3), 2)
    assert reader.read(path.parent / "none.jsonl", "validation/accuracy") == Curve()


def test_a_long_curve_keeps_its_end_and_its_rungs():
    curve = Curve(tuple(float(e) for e in range(1, 1001)))
    points = curve.thinned([500, 777])
    assert len(points) < 150
    assert {1, 500, 777, 1000} <= {epoch for epoch, _ in points}
    assert all(value == epoch for epoch, value in points)


def test_failures_that_differ_in_numbers_are_one_reason():
    def failed(number, reason):
        return TrialRecord("search", number, "FAIL", reason=reason)

    found = failures(
        [
            failed(0, "out of memory"),
            failed(1, "non-finite train/loss in epoch 3 (head stage)"),
            failed(2, "non-finite train/loss in epoch 17 (head stage)"),
            failed(3, None),
            TrialRecord("search", 4, "COMPLETE", 1.0),
        ]
    )
    assert [each.trials for each in found] == [[1, 2], [0], [3]]
    assert found[0].reason == "non-finite train/loss in epoch 3 (head stage)"


def test_best_so_far_follows_the_direction_and_the_clock():
    def ended(number, value, end):
        return TrialRecord("search", number, "COMPLETE", value, end=end)

    trials = [ended(0, 0.5, 30.0), ended(1, 0.4, 10.0), ended(2, 0.6, 20.0), ended(3, 0.6, 40.0)]
    assert [t.number for *_, t in best_so_far(trials, maximize=True)] == [1, 2]
    assert [t.number for *_, t in best_so_far(trials, maximize=False)] == [1]


def test_a_trial_that_breaks_a_constraint_is_never_the_best_so_far(tmp_path):
    """The page drew it as the best line, while its leaderboard named another trial."""
    run = RunMaker(tmp_path / "run").begin().search(trials=12, failed=0, latency=True)
    table = pd.read_parquet(run.run.trials_parquet)
    complete = table[table["state"] == "COMPLETE"]
    best = int(complete.loc[complete["value"].idxmax(), "number"])
    table["feasible"] = [
        None if state != "COMPLETE" else number != best
        for state, number in zip(table["state"], table["number"], strict=True)
    ]
    table.to_parquet(run.run.trials_parquet)
    files = read_run(run.path)
    steps = best_so_far(files.study("search"), maximize=True)
    assert steps[-1][2].number == files.results.leaderboard(1)[0]["trial"] != best
    charts = SearchCharts(files)
    assert best not in [number for *_, number in charts.to_json()["best"]["lines"][0]["steps"]]
    assert best not in [point["trial"] for point in charts.pareto]
