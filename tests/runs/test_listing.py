"""What `gsfl-tune runs` says of the runs below a folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time

import pandas as pd
import pytest

from gsfl_tune.cli import main
from gsfl_tune.experiment import UserError
from gsfl_tune.run import read_json, run_lock, write_json
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.run.running_estimate import RunningEstimate
from gsfl_tune.runs import Run, compare_runs, find_runs, state_of, summarise
from gsfl_tune.runs.side_by_side import print_comparison, write_page
from gsfl_tune.runs.tables import print_runs
from tests.report.runs import RunMaker

BEGUN = 1_790_000_000.0
GONE = "validation/of_a_package"


def made(path, seconds=0.0, **driver):
    """A run whose last driver wrote some seconds after the first one of a test."""
    maker = RunMaker(path).begin().search(12)
    manifest = read_json(maker.run.manifest_file)
    manifest["created"] = "2026-09-21T14:13:20+00:00"
    manifest["settings"] = {"trials": 30, "time_budget": None}
    manifest["drivers"] = [{"begin": BEGUN, "end": BEGUN + seconds, **driver}]
    write_json(maker.run.manifest_file, manifest)
    return maker


@pytest.fixture
def house(tmp_path):
    """Four runs at different depths, one in each state but running."""
    top = tmp_path / "runs"
    made(top / "old", 10, ending={"state": "failed", "reason": "no search trial reached a rung"})
    made(top / "killed", 20)
    made(top / "birds" / "stopped", 30, ending={"state": "interrupted"})
    made(top / "birds" / "deep" / "whole", 40, ending={"state": "finished"}).finish()
    return top


def test_runs_at_any_depth_the_newest_first(house):
    found = {run.path.relative_to(house).as_posix(): run for run in find_runs(house)}
    assert list(found) == ["birds/deep/whole", "birds/stopped", "killed", "old"]
    states = {place: run.state.name for place, run in found.items()}
    assert states == {
        "birds/deep/whole": "finished",
        "birds/stopped": "interrupted",
        "killed": "interrupted",
        "old": "failed",
    }
    assert found["old"].state.reason == "no search trial reached a rung"


def test_a_folder_may_be_a_run_and_its_inside_is_none(house):
    whole = house / "birds" / "deep" / "whole"
    shutil.copytree(house / "killed", whole / "finals" / "copy")
    shutil.copytree(house / "killed", house / ".hidden")
    assert [run.path for run in find_runs(whole)] == [whole]
    assert len(find_runs(house)) == 4


def test_a_run_json_of_another_program_is_no_run(tmp_path):
    write_json(tmp_path / "other" / "run.json", {"command": "make"})
    assert find_runs(tmp_path) == []


def test_a_run_that_is_written_to_is_running(house):
    run = made(house / "killed", 20).run
    assert state_of(run).name == "interrupted"
    with run_lock(run):
        state = state_of(run)
        assert (state.name, state.process) == ("running", str(os.getpid()))
    assert state_of(run).name == "interrupted"


def test_a_running_run_says_how_long_it_still_takes(house, capsys):
    run = made(house / "killed", 20).run
    RunningEstimate("search", 3, 20, 3700.0, time.time()).write(run)
    assert summarise(run.path).left is None
    with run_lock(run):
        found = summarise(run.path)
        print_runs([found], house)
    assert 3600 < found.left <= 3700
    assert found.to_json()["seconds_left"] == found.left
    assert re.search(r"running, 1:01:\d\d left", capsys.readouterr().out)


def test_a_finished_run_that_goes_on_is_running_and_then_as_its_end_says(tmp_path):
    maker = made(tmp_path / "run", ending={"state": "finished"}).finish()
    assert summarise(maker.path).state.name == "finished"
    maker.run.results_file.unlink()
    with pytest.raises(KeyError), Manifest(maker.run).ending():
        raise KeyError("seconds")
    state = summarise(maker.path).state
    assert (state.name, state.reason) == ("failed", "'seconds'")


def test_values_are_those_of_the_table_and_the_results(house):
    run = next(each for each in find_runs(house) if each.state.name == "finished")
    maker = RunMaker(run.path)
    table = pd.read_parquet(maker.run.trials_parquet)
    assert run.best == table.loc[table["state"] == "COMPLETE", "value"].max()
    assert run.test == pytest.approx((0.71 + 0.74 + 0.72) / 3)
    assert run.last == BEGUN + 40
    unfinished = next(each for each in find_runs(house) if each.path.name == "killed")
    assert unfinished.test is None
    assert sum(unfinished.trials.values()) == len(table)


def test_size_is_that_of_du_where_a_checkpoint_has_two_names(house):
    run = house / "killed"
    checkpoint = run / "trials" / "0" / "checkpoint.pt"
    checkpoint.write_bytes(os.urandom(100_000))
    os.link(checkpoint, checkpoint.with_name("checkpoint.1.pt"))
    files = subprocess.run(
        ["du", "--bytes", "--summarize", run], capture_output=True, text=True, check=True
    )
    # du counts the entries of folders too.
    folders = sum(1 for _ in os.walk(run)) * run.stat().st_size
    assert summarise(run).size == pytest.approx(int(files.stdout.split()[0]) - folders, abs=2000)


def test_damage_is_told_and_hides_no_other_run(house, capsys):
    (house / "killed" / "run.json").write_text("{")
    (house / "birds" / "deep" / "whole" / "trials.parquet").write_text("no table")
    assert main(["runs", str(house)]) == 0
    text = capsys.readouterr().out
    assert "killed: " in text
    assert "run.json: cannot be read" in text
    assert "trials.parquet: cannot be read as Parquet" in text
    assert "birds/stopped" in text


def test_a_metric_whose_package_is_gone_hides_no_run(house, capsys):
    whole = RunMaker(house / "birds" / "deep" / "whole")
    write_json(whole.run.results_file, read_json(whole.run.results_file) | {"metric": GONE})
    run = summarise(whole.path)
    assert (run.metric, run.best, run.best_text) == (GONE, None, "–")
    assert run.test == pytest.approx((0.71 + 0.74 + 0.72) / 3)
    assert run.trials["COMPLETE"] > 0
    assert run.problem == "no installed package adds the metric 'of_a_package'"
    assert main(["runs", str(house)]) == 0
    text = capsys.readouterr().out
    assert f"birds/deep/whole: {run.problem}" in text
    assert all(name in text for name in ("birds/stopped", "killed", "old"))


def test_a_pipe_gets_a_line_for_each_run(tmp_path, capsys):
    long = tmp_path / ("a rather long name of an experiment " * 4).strip()
    made(long, ending={"state": "failed", "reason": "x" * 200})
    assert main(["runs", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if long.name in line]
    assert len(lines) == 2  # its row, and the reason
    assert "12 of 30" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_of_80_columns_is_enough(house, capsys, monkeypatch):
    made(house / ("long" * 30), 5)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["runs", str(house)]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    table = text[: text.index("runs, ")].splitlines()
    rows = [line for line in table if "no search trial" not in line]
    assert max(map(len, rows)) <= 80
    assert "".join(re.findall(r"^ ([long]+) ", text, re.MULTILINE)) == "long" * 30


def test_json_is_for_programs(house, capsys):
    assert main(["runs", str(house), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    first = content[0]
    assert first["path"] == str(house / "birds" / "deep" / "whole")
    assert first["state"] == "finished"
    assert first["begun"] == "2026-09-21T14:13:20+00:00"
    assert first["trials"] == {"COMPLETE": 10, "PRUNED": 18, "FAIL": 2}
    assert content[3]["reason"] == "no search trial reached a rung"


def test_no_runs_is_an_answer_and_no_folder_is_bad_input(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert "no runs" in capsys.readouterr().out
    with pytest.raises(UserError, match="found nothing there, allowed is a folder"):
        find_runs(tmp_path / "none")
    assert main(["runs", str(tmp_path / "none")]) == 2


def test_trials_that_only_wait_have_not_begun(tmp_path, capsys):
    """Twenty configurations were enqueued: two of them have begun, of 30."""
    maker = made(tmp_path / "runs" / "run").search(22, running=2, failed=0)
    table = pd.read_parquet(maker.run.trials_parquet)
    table["state"] = ["RUNNING" if number < 2 else "WAITING" for number in table["number"]]
    table.to_parquet(maker.run.trials_parquet)
    shutil.rmtree(maker.run.trials())
    runs = find_runs(tmp_path / "runs")
    assert runs[0].trials == {"RUNNING": 2, "WAITING": 20}
    print_runs(runs, tmp_path / "runs")
    assert " 2 of 30 " in capsys.readouterr().out
    assert "2 trials" in repr(Run(maker.path))
    assert "22 trials" not in repr(Run(maker.path))
    other = made(tmp_path / "other").path
    comparison = compare_runs([maker.path, other])
    print_comparison(comparison)
    assert re.search(r"\brun +\w+ +2 ", capsys.readouterr().out)
    page = write_page(comparison, tmp_path / "page.html").read_text()
    assert re.search(r'<th scope="row">run</th><td>\w+</td><td>2</td>', page)
