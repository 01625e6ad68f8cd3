"""``gsfl-tune adapt``: a bundle for images of another domain, without labels."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import pytest
import torch

from gsfl_tune.adaptation.training import Adapting
from gsfl_tune.export import load_bundle
from tests import warm
from tests.adaptation.conftest import stripes_home

__all__ = ["stripes_home"]


@pytest.fixture
def here(stripes_home, tmp_path, monkeypatch):
    """A directory in which the names are short."""
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(stripes_home / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("bundle", "target", "judge", "source"):
        (tmp_path / name).symlink_to(stripes_home / name)
    return tmp_path


def test_a_table_says_what_was_done(command, here):
    done = command("adapt", "bundle", "target", "-o", "out", "--judge", "judge", "--epochs", 2)
    assert done.code == 0, done.err
    assert re.search(r"mean entropy of an answer, nats +\d\.\d{3} +\d\.\d{3}", done.out)
    assert re.search(r"pseudo-labels that agree with answers +\d+\.\d% +\d+\.\d%", done.out)
    assert re.search(r"accuracy on 80 judged images +\d+\.\d% +\d+\.\d%", done.out)
    assert "the adapted bundle is better on 80 images" in done.out
    assert "removed, as it does not hold any more: test results" in done.out
    assert done.out.endswith("adapted bundle: out\n")
    assert len(re.findall(r"^epoch +\d ", done.err, re.MULTILINE)) == 3
    scored = command("evaluate", "out", "judge", "--json")
    share = json.loads(scored.out)["metrics"]["accuracy"]
    assert f"{100 * share:.1f}%" in done.out


def test_json_has_all_of_it_and_nothing_else_is_printed(command, here):
    (here / "list.txt").write_text("".join(f"target/flat/{n}.png\n" for n in range(20)))
    shutil.copy(here / "list.txt", here / "broken.png")
    done = command(
        "adapt", "bundle", "target/rising", "target/upright", "broken.png", "-o", "out",
        "--files-from", "list.txt", "--epochs", 1, "--blocks", 1, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["images"], found["broken"]) == (60, 1)
    assert found["broken_images"][0]["path"] == "broken.png"
    assert found["settings"]["blocks"] == 1
    assert [epoch["epoch"] for epoch in found["epochs"]] == [0, 1]
    assert sum(each["after"] for each in found["answers"].values()) == 60
    assert found["judge"] is None
    assert "broken.png: left out" in done.err


def test_a_killed_process_goes_on_to_the_same_bits(command, here):
    words = ["adapt", "bundle", "target", "--epochs", "3", "--device", "cpu"]
    killed = warm.start([*words, "-o", "out"], env=os.environ | {"OMP_NUM_THREADS": "1"})
    for line in killed.stderr:
        if line.startswith("epoch   1  "):
            killed.kill()
            break
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (here / "out").exists()
    refused = command(*words, "-o", "out")
    assert (refused.code, "allowed with --resume" in refused.err) == (2, True)
    resumed = command(*words, "-o", "out", "--resume")
    assert resumed.code == 0, resumed.err
    assert command(*words, "-o", "whole").code == 0
    weights = [(here / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_an_interrupt_can_be_resumed(command, here, stopped):
    words = ("adapt", "bundle", "target", "-o", "out", "--epochs", 2, "--beta", 0.2)
    first = stopped(Adapting, *words)
    assert first.code == 3, first.err
    (line,) = re.findall(r"^  gsfl-tune (adapt .*)$", first.err, re.MULTILINE)
    done = command(*line.split())
    assert done.code == 0, done.err
    assert "epoch   2 " in done.err


def test_bad_input_is_named(command, here):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").touch()
    for words, said in (
        (["target", "-o", "full"], "exists and is not an empty directory"),
        (["target", "-o", "out", "--judge", "target"], "what an adaptation has seen cannot judge"),
        (["target", "-o", "out", "--batch-size", 81], "--batch-size: found 81 for 80 images"),
        (["target", "-o", "out", "--learning-rate", -1], "--learning-rate: found -1"),
        (["target", "-o", "out", "--blocks", 99], "--blocks: found 99"),
        (["target", "-o", "out", "--seed", -3], "--seed: found -3"),
        (["nowhere", "-o", "out"], "nowhere: no such file"),
        (["-o", "out"], "no image is named"),
    ):
        done = command("adapt", "bundle", *words)
        assert (done.code, said in done.err) == (2, True), (words, done.err)
        assert not (here / "out").exists()
        assert not (here / "out.adapting").exists()
    done = command("adapt", "nothing", "target", "-o", "out")
    assert (done.code, "no such bundle" in done.err) == (2, True)


def test_a_loss_that_is_not_finite_is_a_failure(command, here):
    done = command("adapt", "bundle", "target", "-o", "out", "--learning-rate", 1e30)
    assert done.code == 1
    assert "failed: " in done.err
    assert "nothing was written" in done.err
    assert not (here / "out").exists()


@pytest.mark.slow
def test_an_adapted_bundle_is_exported_and_an_export_is_not_adapted(command, here):
    pytest.importorskip("onnxruntime")
    assert command("adapt", "bundle", "target", "-o", "out", "--epochs", 1).code == 0
    done = command("export", "out", "onnx", "--format", "onnx", "--seconds", 0, "--threads", 1)
    assert done.code == 0, done.err + done.out
    files = [f"judge/{name}/0.png" for name in ("falling", "flat", "rising", "upright")]
    plain, exported = (
        [each.probabilities[0] for each in load_bundle(here / name, "cpu").predict(files, top=1)]
        for name in ("out", "onnx")
    )
    assert exported == pytest.approx(plain, abs=1e-4)
    assert "## Adaptation" in (here / "onnx" / "README.md").read_text()
    refused = command("adapt", "onnx", "target", "-o", "again")
    assert (refused.code, "exported as onnx" in refused.err) == (2, True)
    refused = command("export", "out", "other", "--ensemble")
    assert (refused.code, "--ensemble: found with the bundle" in refused.err) == (2, True)
    refused = command("export", "onnx", "other")
    assert (refused.code, "found an export already (onnx)" in refused.err) == (2, True)


def test_too_little_memory_is_a_failure_that_names_the_options(command, here, monkeypatch):
    run, failing = Adapting.run_epoch, 1

    def asked(self):
        if self.epoch == failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self)

    words = ("adapt", "bundle", "target", "-o", "out", "--epochs", 2)
    for epoch, kept in ((1, True), (0, False)):
        failing = epoch
        with monkeypatch.context() as patch:
            patch.setattr(Adapting, "run_epoch", asked)
            done = command(*words)
        assert done.code == 1
        assert "failed: out of memory (CUDA out of memory); a smaller --batch-size" in done.err
        assert ("--resume" in done.err) == kept
        assert (here / "out.adapting").exists() == kept
        if kept:
            assert command(*words, "--resume").code == 0
            shutil.rmtree(here / "out")
    assert command(*words, "--batch-size", 16).code == 0
