"""``gsfl-tune pretrain``: weights from images without labels."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import torch

from gsfl_tune.cache import building
from gsfl_tune.cli.pretrain import _gather
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.search.workers.rank_process import RankLost
from gsfl_tune.training import precision as measuring
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
training: {device: cpu, precision: fp32, head: {epochs: 1, batch_size: 32}}
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


GPU = ["training.device=auto", "training.finetune.epochs=1"]


def precision(name):
    return ["--set", f"training.precision={name}"]


def contents(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def failing(patch, error, epoch=1):
    """Lets an epoch fail, counted from 0."""
    run = Pretraining.run_epoch

    def asked(self):
        if self.epoch == epoch:
            raise error
        return run(self)

    patch.setattr(Pretraining, "run_epoch", asked)


def nothing_trained(patch):
    failing(patch, AssertionError("an epoch was trained"), 0)


@pytest.fixture
def interrupted(file, tmp_path, command, monkeypatch):
    """A run directory with one epoch of two, in fp32."""
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        assert command("pretrain", file, "--run-dir", "run", *precision("fp32")).code == 3
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]
    return tmp_path / "run"


def test_a_resume_keeps_the_precision_that_was_measured(file, tmp_path, command, monkeypatch):
    seconds = {"fp32": 2.0, "bf16": 1.0}
    monkeypatch.setattr(measuring, "has_bf16_units", lambda: True)
    monkeypatch.setattr(measuring, "_time_both", lambda *_: dict(seconds))
    words = ("pretrain", file, "--run-dir", "run", *precision("auto"))
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        assert command(*words).code == 3
    facts = tmp_path / "run" / "pretrain.json"
    assert json.loads(facts.read_text())["key"]["training.precision"] == "bf16"
    # Under load, or with other threads, another measurement may say something else.
    [kept] = (tmp_path / "cache").glob("precision/*.json")
    kept.unlink()
    seconds["bf16"] = 2.0
    resumed = command(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert json.loads(facts.read_text())["key"]["training.precision"] == "bf16"


def test_a_resume_that_would_give_other_weights_is_refused(file, interrupted, command, monkeypatch):
    before = contents(interrupted)
    words = ("pretrain", file, "--run-dir", "run", "--resume")
    other = command(*words, *precision("bf16"))
    assert (other.code, "training.precision: was fp32, found bf16" in other.err) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr("gsfl_tune.training.pretrain.cached.version", lambda name: "0.1")
        other = command(*words, *precision("fp32"))
    assert (other.code, "version of lightly: was 1" in other.err) == (2, True)
    assert contents(interrupted) == before
    # A directory of an earlier version does not say why, but keeps its checkpoint too.
    facts = json.loads(before["pretrain.json"])
    del facts["key"]
    (interrupted / "pretrain.json").write_text(json.dumps(facts))
    other = command(*words, *precision("bf16"))
    assert (other.code, "checkpoint.pt: is of another pretraining" in other.err) == (2, True)
    now = contents(interrupted)
    assert all(now[name] == before[name] for name in ("checkpoint.pt", "epochs.jsonl"))
    assert command(*words, *precision("fp32")).code == 0


def test_a_start_that_is_refused_binds_nobody(file, tmp_path, command):
    words = ("pretrain", file, "--run-dir", "run", "--set", "pretrain.epochs=1")
    refused = command(*words, "--set", "pretrain.batch_size=10000")
    assert (refused.code, "pretrain.batch_size: found 10000" in refused.err) == (2, True)
    assert command(*words).code == 0
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]


def test_an_interrupt_while_weights_are_written_costs_no_epoch(
    file, tmp_path, command, monkeypatch
):
    def asked(temporary, path):
        if path.suffix == ".safetensors":
            raise KeyboardInterrupt
        publish(temporary, path)

    publish = building.publish
    words = ("pretrain", file, "--run-dir", "run")
    with monkeypatch.context() as patch:
        patch.setattr(building, "publish", asked)
        assert command(*words).code == 3
    before = records(tmp_path / "run")
    assert [record["epoch"] for record in before] == [0, 1, 2]
    with monkeypatch.context() as patch:
        nothing_trained(patch)
        done = command(*words, "--resume")
    assert done.code == 0, done.err
    assert records(tmp_path / "run") == before
    assert "checkpoint.pt" not in contents(tmp_path / "run")
    assert "<img" in (tmp_path / "run" / "pretraining.html").read_text()


def test_what_is_finished_is_not_trained_again_without_the_cache(
    file, tmp_path, command, monkeypatch
):
    words = ("pretrain", file, "--run-dir", "run")
    assert command(*words).code == 0
    before = contents(tmp_path / "run")
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "empty"))
    nothing_trained(monkeypatch)
    done = command(*words, "--resume")
    assert done.code == 0, done.err
    for name in ("epochs.jsonl", "backbone.safetensors", "pretraining.html"):
        assert contents(tmp_path / "run")[name] == before[name]


def test_other_work_is_never_overwritten(file, tmp_path, command):
    assert command("train", file, "--dir", "mine").code == 0
    before = contents(tmp_path / "mine")
    refused = command("pretrain", file, "--run-dir", "mine")
    assert (refused.code, "of something else than a pretraining" in refused.err) == (2, True)
    search = tmp_path / "search"
    search.mkdir()
    (search / "run.json").write_text("{}")
    (search / "experiment.yaml").write_text(TEXT)
    refused = command("pretrain", file, "--run-dir", "search")
    assert (refused.code, "found experiment.yaml, run.json of" in refused.err) == (2, True)
    assert contents(tmp_path / "mine") == before
    assert sorted(contents(search)) == ["experiment.yaml", "run.json"]
    refused = command("pretrain", file, "--run-dir", file)
    assert (refused.code, "found a file, allowed a directory" in refused.err) == (2, True)


def test_two_do_not_use_a_directory_at_once(file, tmp_path, command):
    with run_lock(RunDirectory(tmp_path / "run")):
        refused = command("pretrain", file, "--run-dir", "run")
    assert refused.code == 2
    assert "another pretraining is using this directory" in refused.err
    assert sorted(contents(tmp_path / "run")) == [".lock"]


@pytest.mark.parametrize(
    ("resources", "gpus", "processes"),
    [
        ("gpu=2", 2, 2),
        ("gpus_per_trial=2", 4, 2),
        ("gpu=0.5", 1, None),
        ("gpu=auto", 4, None),
    ],
)
def test_as_many_processes_train_as_in_a_search(file, monkeypatch, resources, gpus, processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    settings = [f"search.resources.{resources}", *GPU]
    config = Experiment.load(file, settings).defaults()
    team = _gather(config, None)
    assert (None if team is None else team.size) == processes


def test_more_gpus_than_there_are_is_refused(file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = ["search.resources.gpus_per_trial=2", *GPU]
    config = Experiment.load(file, settings).defaults()
    with pytest.raises(UserError, match=r"a trial asks for 2 GPUs, this machine has 1; allowed"):
        _gather(config, None)


def test_too_little_memory_is_a_failure_that_names_the_key(file, tmp_path, command, monkeypatch):
    words = ("pretrain", file, "--run-dir", "run", "--set", "pretrain.epochs=1")
    with monkeypatch.context() as patch:
        failing(patch, torch.OutOfMemoryError("CUDA out of memory"), 0)
        done = command(*words)
    assert done.code == 1
    assert "failed: out of memory (CUDA out of memory); a smaller pretrain.batch_size" in done.out
    assert "--resume" not in done.out
    # No epoch was trained, so nothing is lost.
    assert command(*words, "--set", "pretrain.batch_size=20").code == 0
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]


def test_a_process_that_is_lost_is_a_failure_that_can_be_resumed(file, command, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, RankLost("rank 1, a process of the trial, died (killed)"))
        done = command("pretrain", file, "--run-dir", "run")
    assert done.code == 1
    assert "failed: rank 1, a process of the trial, died (killed)" in done.out
    (line,) = re.findall(r"^  gsfl-tune (pretrain .* --resume)$", done.out, re.MULTILINE)
    assert command(*line.split()).code == 0
