"""``gsfl-tune pretrain``: weights from images without labels."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from gsfl_tune.training.pretrain import Pretraining
from tests import warm

pytest.importorskip("lightly")

TEXT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  split: {validation: 0.4}
  typefaces: {train: 5, test: 1, size: 40}
model: {backbone: test_resnet, weights: none, latent_dim: 8}
training: {device: cpu, head: {epochs: 1, batch_size: 32}}
pretrain:
  epochs: 2
  batch_size: 24
  hidden_dim: 16
  projection_dim: 8
  learning_rate: {float: [0.01, 0.1], log: true, default: 0.03}
  evaluate_every: 2
  discriminative: {pair_weight: 0.5, reconstruction_weight: 0.5, decoder_width: 8, warmup: 0.5}
"""
NAMES = ["linear_probe", "knn_20", "knn_200", "retrieval_top1", "retrieval_top5", "retrieval_map"]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def records(folder):
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def judged(record):
    return [n.removeprefix("validation/") for n in record if n.startswith("validation/")]


def test_a_killed_process_goes_on_to_the_same_bits(file, tmp_path, command, monkeypatch):
    killed = warm.start(["pretrain", file], env=os.environ | {"OMP_NUM_THREADS": "1"})
    for line in killed.stdout:
        if line.startswith("epoch   1  "):
            killed.kill()
            break
    assert killed.wait(timeout=60) == -signal.SIGKILL
    run = tmp_path / "runs" / "tiny-pretrain"
    assert len(records(run)) in (2, 3)
    refused = command("pretrain", file)
    assert (refused.code, "allowed with --resume" in refused.err) == (2, True)
    resumed = command("pretrain", file, "--resume")
    assert resumed.code == 0, resumed.err
    # The same in one go, where nothing is cached.
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "other"))
    whole = command("pretrain", file, "--run-dir", "whole")
    assert whole.code == 0, whole.err
    weights = [folder / "backbone.safetensors" for folder in (run, tmp_path / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    both = [[{**r, "seconds": 0} for r in records(each.parent)] for each in weights]
    assert both[0] == both[1]
    assert [record["epoch"] for record in both[0]] == [0, 1, 2]
    assert [judged(record) for record in both[0]] == [NAMES, [], NAMES]
    table = whole.out[whole.out.index("validation part") :]
    last = f"{100 * both[0][-1]['validation/knn_20']:.1f}"
    assert re.search(rf"knn 20 .* {re.escape(last)} *\n", table)
    assert "kNN with k 200: there are" in whole.out
    # The page of a run that was killed shows what that of the other does.
    pages = [(each.parent / "pretraining.html").read_text() for each in weights]
    pictures = [re.findall(r'<img src="(data:[^"]+)" alt="([^"]+)"', page) for page in pages]
    assert pictures[0] == pictures[1]
    kinds = {alt.partition(":")[0] for _, alt in pictures[0]}
    assert kinds == {"image", "original vector", "perturbed vector"}
    assert 'data-chart="dimensions"' in pages[0]


def test_the_result_is_cached_by_content_and_serves_model_weights(file, tmp_path, command):
    assert command("pretrain", file, "--run-dir", "one").code == 0
    again = command("pretrain", file, "--run-dir", "two")
    assert again.code == 0, again.err
    assert "its weights come from the cache" in again.out
    page = (tmp_path / "two" / "pretraining.html").read_text()
    assert "the losses of their epochs are not known" in page
    assert "<img" not in page
    one, two = (tmp_path / name / "backbone.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    # Judged once more from the file, before and after.
    first, second = records(tmp_path / "one"), records(tmp_path / "two")
    assert [record["epoch"] for record in second] == [0, 2]
    for epoch, record in zip((0, -1), second, strict=True):
        for name in NAMES:
            wanted = pytest.approx(first[epoch][f"validation/{name}"], abs=0.03)
            assert record[f"validation/{name}"] == wanted
    finished = command("pretrain", file, "--run-dir", "one", "--resume")
    assert finished.code == 0
    assert records(tmp_path / "one") == first
    used = command("train", file, "--dir", "t", "--set", f"model.weights={one}")
    assert used.code == 0, used.err


@pytest.mark.slow
def test_an_interrupt_can_be_resumed(file, tmp_path, command, stopped):
    settings = ("--set", "pretrain.batch_size=20")
    first = stopped(Pretraining, "pretrain", file, "--run-dir", "run", *settings)
    assert first.code == 3, first.err
    words = f"gsfl-tune pretrain {file} --run-dir run --resume --set pretrain.batch_size=20"
    assert words in first.out
    done = command(*words.split()[1:])
    assert done.code == 0, done.err
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1, 2]


def test_a_resume_with_other_settings_is_refused(file, command):
    assert command("pretrain", file, "--run-dir", "run", "--set", "pretrain.epochs=1").code == 0
    other = command("pretrain", file, "--run-dir", "run", "--resume")
    assert other.code == 2
    assert "epochs: was 1, found 2" in other.err
    assert command("pretrain", file, "--run-dir", "none", "--resume").code == 2


def test_a_collapse_is_a_failure_with_a_reason(file, command):
    done = command("pretrain", file, "--run-dir", "run", "--set", "pretrain.collapse=0.99")
    assert done.code == 1
    assert "failed: the representations collapsed in epoch 1" in done.out


def test_screened_pooling_is_judged_too(file, tmp_path, command):
    sizes = ["--set", "data.image_size=64", "--set", "pretrain.epochs=1"]
    done = command("pretrain", file, "--run-dir", "run", *sizes, "--set", "pretrain.lcr.weight=0.1")
    assert done.code == 0, done.err
    last = records(tmp_path / "run")[-1]
    assert judged(last) == [*NAMES, *(f"screened/{name}" for name in NAMES)]
    assert 0 < last["train/screening"] < 10


def test_check_prices_a_pretraining(file, command):
    checked = command("check", file, "--set", "training.pretrain=true")
    assert checked.code == 0, checked.err
    assert re.search(r"pretraining +up to \d+ of 2 epochs, .* TFLOP", checked.out)
    assert "has no effect" not in checked.out
    # Without the stage the searched rate of the section changes no trial.
    plain = command("check", file)
    assert "pretraining " not in plain.out
    assert "pretrain.learning_rate" in plain.out
    assert "it needs training.pretrain = true" in " ".join(plain.out.split())
