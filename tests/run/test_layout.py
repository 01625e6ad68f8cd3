"""Runs of earlier versions are found by these names, and people by the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.run.layout import replicate_directories, replicate_directory

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
PATHS = {
    "experiment_file": "experiment.yaml",
    "starter_file": "starter.yaml",
    "manifest_file": "run.json",
    "plan_file": "plan.json",
    "data_file": "data.json",
    "journal": "study.journal",
    "trials_parquet": "trials.parquet",
    "results_file": "results.json",
    "evidence_file": "evidence.json",
    "evidence": "evidence",
    "utilisation_file": "utilisation.json",
    "tracking_file": "tracking.json",
    "tensorboard": "tensorboard",
    "workers_file": "workers.jsonl",
    "best": "best",
    "best_simple": "best-simple",
    "best_training": "best-training",
    "finals": "finals",
}


@pytest.mark.parametrize(("name", "path"), PATHS.items(), ids=PATHS)
def test_a_path_has_the_name_that_the_page_of_results_lists(name: str, path: str) -> None:
    assert getattr(RunDirectory("/runs/one"), name) == Path("/runs/one") / path
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    listed = {each for row in rows for each in re.findall("`([^`]+)`", row.split("|")[1])}
    assert {path, f"{path}/"} & listed


def test_a_trial_has_a_directory_of_its_study_and_number() -> None:
    run = RunDirectory("/runs/one")
    assert run.trial("search", 7) == Path("/runs/one/trials/7")
    assert run.trial("control", 7) == Path("/runs/one/control/trials/7")


def test_a_run_stays_where_it_is_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory("runs/one")
    monkeypatch.chdir("/")
    assert run.journal == tmp_path / "runs" / "one" / "study.journal"


def test_the_trainings_of_a_trial_have_directories_in_their_order(tmp_path):
    run = RunDirectory(tmp_path)
    trial = run.trial("search", 3)
    assert replicate_directories(trial) == [trial]
    for number in (0, 1, 9, 10):
        replicate_directory(trial, number).mkdir(parents=True)
    (trial / "replicate-x").mkdir()
    names = [each.name for each in replicate_directories(trial)]
    assert names == ["3", "replicate-2", "replicate-10", "replicate-11"]
