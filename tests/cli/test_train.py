"""``gsfl-tune train``: one configuration, no Ray."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import bundle_from_network
from gsfl_tune.training import Training
from gsfl_tune.training.standalone import open_workspace
from tests import warm

TEXT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  typefaces: {train: 6, test: 2, size: 40}
model: {backbone: test_efficientnet, weights: none, latent_dim: {choice: [8, 16]}}
training: {device: cpu, head: {epochs: 3, batch_size: 32}}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def epochs(folder):
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def test_trains_the_defaults_and_continues_what_is_there(file, tmp_path, command):
    first = command("train", file)
    assert first.code == 0, first.err
    folder = tmp_path / "runs" / "tiny-train"
    before = epochs(folder)
    assert [record["epoch"] for record in before] == [1, 2, 3]
    assert f"{before[-1]['validation/accuracy']:.4f}" in first.out
    again = command("train", file)
    assert again.code == 0
    assert epochs(folder) == before


def test_set_overrides_a_distribution(file, tmp_path, command):
    done = command("train", file, "--dir", "out", "--set", "training.head.epochs=1")
    assert done.code == 0, done.err
    assert len(epochs(tmp_path / "out")) == 1


def test_divergence_is_a_failure_with_a_reason(file, command):
    done = command("train", file, "--dir", "out", "--set", "training.head.learning_rate=1e30")
    assert done.code == 1
    assert "non-finite" in done.out


def test_a_bundle_teaches_and_what_it_may_have_seen_is_said(file, tmp_path, command):
    experiment = Experiment.load(file)
    workspace, config = open_workspace(experiment), experiment.defaults()
    bundle = bundle_from_network(
        tmp_path / "teacher",
        Training(config, workspace, tmp_path / "untrained").trained_network(),
        config,
        classes=workspace.dataset.classes,
        groups=None,
        side=workspace.dataset.pool.side,
        metrics={},
    )
    learns = ("--dir", "student", "--set", "loss.distill.weight=1", "--set")
    done = command("train", file, *learns, f"training.teacher={bundle}")
    assert done.code == 0, done.err
    assert "does not say whether it was trained on images of the validation or test" in done.out
    assert all(record["train/distill"] > 0 for record in epochs(tmp_path / "student"))
    refused = command("train", file, *learns, "training.teacher=nowhere")
    assert refused.code == 2
    assert "training.teacher: found '" in refused.err
    assert "allowed is the directory of a bundle, such as RUN/best" in refused.err


@pytest.mark.slow
def test_neither_ray_nor_optuna_is_imported_by_training():
    code = (
        "import sys, gsfl_tune.training, gsfl_tune.export\n"
        "sys.exit(bool({'ray', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_epochs_after_the_last_checkpoint_are_not_logged_twice(file, tmp_path, command):
    whole = command("train", file, "--dir", "whole")
    assert whole.code == 0, whole.err
    # What a kill leaves between the line of an epoch and its checkpoint.
    script = (
        "import os, sys\n"
        "from gsfl_tune.training import Training\n"
        "save = Training.save\n"
        "Training.save = lambda self: os._exit(9) if self.epoch == 2 else save(self)\n"
        "from gsfl_tune.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["train", str(file), "--dir", "killed"]
    killed = warm.run(arguments, code=script)
    assert killed.returncode == 9
    assert [record["epoch"] for record in epochs(tmp_path / "killed")] == [1, 2]
    assert command(*arguments).code == 0
    ours, theirs = epochs(tmp_path / "killed"), epochs(tmp_path / "whole")
    assert [record["epoch"] for record in ours] == [1, 2, 3]
    assert ours[-1]["train/loss"] == theirs[-1]["train/loss"]


def test_find_lr_draws_the_losses_and_trains_nothing_to_keep(file, tmp_path, command):
    done = command("train", file, "--find-lr", "--steps", "25")
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "tiny-rates"
    (head,) = json.loads((folder / "learning-rates.json").read_text())
    assert head["key"] == "training.head.learning_rate"
    assert f"a tenth of the lowest loss  {head['below_minimum']:.2g}" in done.out
    with Image.open(folder / "learning-rates.png") as picture:
        picture.load()
        assert picture.width > picture.height > 300
        assert len(picture.getcolors(2**20)) > 50
    assert sorted(path.name for path in folder.iterdir()) == [
        "learning-rates.json",
        "learning-rates.png",
    ]


def test_steps_without_find_lr_are_refused(file, command):
    done = command("train", file, "--steps", "25")
    assert done.code == 2
    assert "--steps: found without --find-lr" in done.err
