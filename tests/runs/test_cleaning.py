"""What `gsfl-tune clean` removes, and that nothing else needs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pandas as pd
import pytest

from gsfl_tune.cli import main
from gsfl_tune.experiment import UserError
from gsfl_tune.export import load_bundle
from gsfl_tune.run import RunDirectory, run_lock, write_json
from gsfl_tune.runs import clean, plan_cleaning
from gsfl_tune.runs.cleaning import COMPARED, OLDER, OTHERS, RETRAINED, TORN, TRIALS, UNFINISHED
from tests.export.conftest import cache_dir, trained_run
from tests.report.runs import RunMaker
from tests.runs.made import answers, finished_run

__all__ = ["cache_dir", "trained_run"]

CHECKPOINT = 3000


def checkpoint(folder, name="checkpoint.pt", *, result=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(os.urandom(CHECKPOINT))
    if result is not None:
        write_json(folder / "result.json", {"test": result})


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A finished run with every kind of checkpoint; trial 11 of the search still runs."""
    run = finished_run(tmp_path / "run", answers(1))
    table = pd.read_parquet(run.trials_parquet)
    table.loc[table["number"] == 11, "state"] = "RUNNING"
    rival = table.head(1).assign(study="control", number=4, state="COMPLETE")
    pd.concat([table, rival]).to_parquet(run.trials_parquet)
    for number in (0, 3, 11):
        checkpoint(run.trial("search", number))
    checkpoint(run.trial("search", 3), "checkpoint.1.pt")
    checkpoint(run.trial("control", 4))
    checkpoint(run.trial("control", 5))  # not in the table: nobody knows
    for seed in (1, 2, 3):
        # RunMaker's winner is trial 3, and its tuned control too.
        checkpoint(run.finals / "search-3" / "retrain" / f"seed-{seed}", result={})
        checkpoint(run.finals / "control-3" / "retrain" / f"seed-{seed}", result={})
    checkpoint(run.finals / "search-3" / "retrain" / "seed-1", "checkpoint.1.pt")
    checkpoint(run.finals / "search-0" / "retrain" / "seed-1", result={})
    checkpoint(run.finals / "search-6" / "retrain" / "seed-1")
    (run.path / "picks" / "6").mkdir(parents=True)
    checkpoint(run.finals / "search-3" / "validate" / "seed-1", result={})
    checkpoint(run.finals / "search-9" / "validate" / "seed-1")
    (run.path / ".results.json.abc.tmp").write_text("torn")
    checkpoint(run.path / "mine")
    return run


def places(files, run):
    return sorted((each.path.relative_to(run.path).as_posix(), each.why) for each in files)


GONE = [
    (".results.json.abc.tmp", TORN),
    ("control/trials/4/checkpoint.pt", TRIALS),
    ("finals/search-0/retrain/seed-1/checkpoint.pt", OTHERS),
    ("finals/search-3/retrain/seed-1/checkpoint.1.pt", OLDER),
    ("finals/search-3/validate/seed-1/checkpoint.pt", COMPARED),
    ("finals/search-6/retrain/seed-1/checkpoint.pt", OTHERS),
    ("trials/0/checkpoint.pt", TRIALS),
    ("trials/3/checkpoint.1.pt", TRIALS),
    ("trials/3/checkpoint.pt", TRIALS),
]
MODELS = [
    (f"finals/{label}-3/retrain/seed-{seed}/checkpoint.pt", RETRAINED)
    for label in ("control", "search")
    for seed in (1, 2, 3)
]
NEEDED = [
    ("control/trials/5/checkpoint.pt", UNFINISHED),
    ("finals/search-9/validate/seed-1/checkpoint.pt", UNFINISHED),
    ("mine/checkpoint.pt", UNFINISHED),
    ("trials/11/checkpoint.pt", UNFINISHED),
]


def test_what_goes_and_what_stays(run):
    plan = plan_cleaning(run.path)
    assert places(plan.remove, run) == GONE
    assert places(plan.keep, run) == sorted([*MODELS, *NEEDED])
    assert plan.freed == (len(GONE) - 1) * CHECKPOINT + len("torn")


def test_a_winner_that_was_trained_for_its_bundle_alone_is_not_needed(run):
    """As `export --without-validation` does where an older version validated no winner."""
    (run.path / "picks" / "9-train").mkdir()
    path = "finals/search-9/validate/seed-1/checkpoint.pt"
    plan = plan_cleaning(run.path)
    assert (path, OTHERS) in places(plan.remove, run)
    assert (path, UNFINISHED) not in places(plan.keep, run)
    # The bundle of one training says nothing of another.
    checkpoint(run.finals / "search-9" / "retrain" / "seed-1")
    kept = places(plan_cleaning(run.path).keep, run)
    assert ("finals/search-9/retrain/seed-1/checkpoint.pt", UNFINISHED) in kept


def test_retrained_models_go_when_asked_for(run):
    plan = plan_cleaning(run.path, retrained=True)
    assert places(plan.remove, run) == sorted([*GONE, *MODELS])
    assert places(plan.keep, run) == NEEDED
    shutil.rmtree(run.best)  # without the bundle they are the only models
    assert places(plan_cleaning(run.path, retrained=True).remove, run) == GONE


def test_of_a_run_that_may_be_resumed_only_what_a_resume_does_not_need(run):
    run.results_file.unlink()
    plan = plan_cleaning(run.path, retrained=True)
    # Any candidate may still win, and its retrain go on.
    still = [each for each in GONE if each[1] not in (OTHERS,)]
    assert places(plan.remove, run) == still


def contents(run):
    return {
        path.relative_to(run.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.path.rglob("*")
        if path.is_file()
    }


def test_nothing_is_removed_before_yes_and_then_only_what_was_shown(run, capsys):
    before = contents(run)
    assert main(["clean", str(run.path)]) == 0
    text = capsys.readouterr().out
    assert "would remove 12 kB: 4 checkpoints of trials that have ended" in text
    assert "nothing is removed yet: gsfl-tune clean" in text
    assert contents(run) == before
    assert main(["clean", str(run.path), "--yes"]) == 0
    assert "freed 24 kB" in capsys.readouterr().out
    after = contents(run)
    after.pop(".lock")
    gone = [place for place, _ in GONE]
    assert after == {place: digest for place, digest in before.items() if place not in gone}
    assert main(["clean", str(run.path), "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_links_are_left_alone(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    checkpoint(elsewhere)
    shutil.rmtree(run.trial("search", 0))
    run.trial("search", 0).symlink_to(elsewhere)
    target = run.trial("search", 3) / "checkpoint.2.pt"
    target.symlink_to(elsewhere / "checkpoint.pt")
    clean(run.path)
    assert (elsewhere / "checkpoint.pt").is_file()
    assert target.is_symlink()


def test_a_run_that_is_written_to_is_refused(run, tmp_path, capsys):
    before = contents(run)
    other = finished_run(tmp_path / "other", answers(1))
    checkpoint(other.trial("search", 0))
    with run_lock(run):
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            clean(run.path)
        # Another run is cleaned nevertheless.
        assert main(["clean", str(run.path), str(other.path), "--yes", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert "a driver is working on this run" in told[0]["refused"]
    assert told[1]["removed"] is True
    assert told[1]["remove"] == [
        {"path": "trials/0/checkpoint.pt", "bytes": CHECKPOINT, "why": TRIALS}
    ]
    after = contents(run)
    after.pop(".lock")
    assert after == before


def test_no_run_is_bad_input(tmp_path, capsys):
    assert main(["clean", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert not (tmp_path / ".lock").exists()
    assert main(["clean", str(tmp_path / "none"), "--yes"]) == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("options", [[], ["--retrained"]])
def test_the_other_commands_work_on_what_is_left(trained_run, tmp_path, capsys, options):
    shutil.copytree(trained_run.path, tmp_path / "run")
    run = RunMaker(tmp_path / "run").begin().search(12).finish().evidence().run
    for number in range(12):
        checkpoint(run.trial("search", number))
    checkpoint(run.finals / "search-3" / "retrain" / "seed-1", result={})
    commands = [
        ["results", str(run.path), "--json"],
        ["report", str(run.path), "-o", str(tmp_path / "page.html")],
        ["compare", str(run.path), str(finished_run(tmp_path / "b", answers(1)).path), "--json"],
    ]

    def told():
        found = []
        for words in commands:
            capsys.readouterr()
            assert main(words) == 0
            found.append(capsys.readouterr().out)
        return found

    before = told()
    assert main(["clean", str(run.path), "--yes", *options]) == 0
    assert not list(run.path.rglob("trials/*/checkpoint*.pt"))
    assert told() == before
    out = tmp_path / "out"
    assert main(["export", str(run.path), str(out)]) == 0
    assert load_bundle(out, "cpu").classes == load_bundle(trained_run.best, "cpu").classes
    assert (out / "model.safetensors").read_bytes() == (
        trained_run.best / "model.safetensors"
    ).read_bytes()


def test_checkpoints_of_further_folds_go_with_their_trial(run):
    for number in (3, 11):
        checkpoint(run.trial("search", number) / "replicate-2")
    checkpoint(run.trial("control", 4) / "replicate-3")
    plan = plan_cleaning(run.path)
    gone = {each.path.relative_to(run.path).as_posix() for each in plan.remove}
    kept = {each.path.relative_to(run.path).as_posix() for each in plan.keep}
    assert "trials/3/replicate-2/checkpoint.pt" in gone
    assert "control/trials/4/replicate-3/checkpoint.pt" in gone
    assert "trials/11/replicate-2/checkpoint.pt" in kept


def test_a_run_that_cannot_be_locked_is_refused_in_a_line(run, capsys):
    """It may be somebody else's, or on a disk that is mounted read-only."""
    run.lock_file.unlink(missing_ok=True)
    run.lock_file.mkdir()
    before = sorted(run.path.rglob("*"))
    assert main(["clean", str(run.path), "--yes"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{run.lock_file}: cannot be written (Is a directory), allowed is")
    assert sorted(run.path.rglob("*")) == before
