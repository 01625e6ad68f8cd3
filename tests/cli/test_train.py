"""``gsfl-tune train``: one configuration, no Ray."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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


def test_neither_ray_nor_optuna_is_imported_by_training():
    code = (
        "import sys, gsfl_tune.training, gsfl_tune.export\n"
        "sys.exit(bool({'ray', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
