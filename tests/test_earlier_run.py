"""A run that an earlier version began goes on under this one.

``run/earlier/run.tar.xz`` was written by commit 239f12c, before loss terms, methods, named batches
and the rooms of the package: a search that SIGKILL ended when four trials were complete and a fifth
had trained its head stage. ``expected.jsonl`` holds the epochs of that trial as the same commit
trained them without an interruption.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, refuse_changes
from gsfl_tune.training import Training
from gsfl_tune.training.standalone import open_workspace

from .commands import gsfl_tune

ARCHIVE = Path(__file__).parent / "run" / "earlier" / "run.tar.xz"
TRIAL = 5


@pytest.fixture
def earlier(tmp_path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_its_study_is_read_and_its_trial_goes_on_where_it_was(earlier):
    torch.set_num_threads(1)
    run, experiment = RunDirectory(earlier / "run"), Experiment.load(earlier / "search.yaml")
    refuse_changes(run, experiment)
    study = open_study(experiment, run)
    states = [trial.state.name for trial in study.trials()]
    params = study.trials()[TRIAL].params
    study.close()
    assert states == ["COMPLETE"] * 4 + ["RUNNING"] * 2
    workspace = open_workspace(experiment, earlier / "cache")
    data = json.loads(run.manifest_file.read_text())["data"]
    assert workspace.dataset.digest == data  # images and parts are the same
    training = Training(experiment.configure(params), workspace, run.trial("search", TRIAL))
    assert training.restore()
    assert training.epoch == 4
    # `auto` times both precisions, so it depends on the machine and its load.
    training.context.autocast = training.context.frozen_bf16 = False
    while not training.finished:
        training.run_epoch()
    lines = (earlier / "expected.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in lines]
    found = training.log.read()
    assert [each["epoch"] for each in found] == [each["epoch"] for each in expected]
    for one, other in zip(found, expected, strict=True):
        numbers = {key: value for key, value in other.items() if isinstance(value, float)}
        del numbers["seconds"]
        # Processors round differently.
        assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=2e-3, abs=2e-3)


@pytest.mark.slow
def test_its_search_comes_to_an_end(earlier):
    run = earlier / "run"
    done = gsfl_tune(earlier, "search", "search.yaml", "--run-dir", run, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    epochs = (run / "trials" / str(TRIAL) / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in epochs] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run / "results.json").read_text())["status"] == "finished"
