"""``gsfl-tune export``."""

from __future__ import annotations

import json
import shutil

import pytest

from gsfl_tune.export import load_bundle


@pytest.fixture
def run(begun, bundle_path):
    shutil.copytree(bundle_path, begun / "best")
    return begun


def test_exports_in_a_process(process, run, tmp_path):
    out = tmp_path / "to deploy"
    answer = process("export", run, out)
    assert (answer.code, answer.err) == (0, "")
    assert "model.safetensors" in answer.out
    assert load_bundle(out).classes[0] == "ant"


def test_refusals_are_bad_input(command, run, begun, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    answer = command("export", run, tmp_path / "full")
    assert answer.code == 2
    assert "not an empty directory" in answer.err
    answer = command("export", run, tmp_path / "out", "--with-shared")
    assert answer.code == 2
    assert "no shared branch" in answer.err
    shutil.rmtree(run / "best")
    answer = command("export", run, tmp_path / "out")
    assert answer.code == 2
    assert "--resume" in answer.err
    assert not (tmp_path / "out").exists()


def test_training_images_come_along_when_asked_for(
    command, trained_run, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    out = tmp_path / "out"
    answer = command("export", trained_run.path, out, "--neighbours-per-class", 2)
    assert answer.code == 2
    assert "--neighbours-per-class: found without --with-neighbours" in answer.err
    arguments = ["--with-neighbours", "--neighbours-per-class", 2]
    answer = command("export", trained_run.path, out, *arguments)
    assert answer.code == 0, answer.err
    assert "neighbours.safetensors" in answer.out
    bundle = load_bundle(out)
    assert len(bundle.training_images) == 2 * len(bundle.classes)


@pytest.mark.slow
def test_the_table_fits_a_terminal(process, trained_run, cache_dir, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    out = tmp_path / "onnx"
    arguments = ["--format", "onnx", "--precision", "int8", "--threads", 1, "--epochs", 0]
    arguments += ["--seconds", 0]
    answer = process("export", trained_run.path, out, *arguments)
    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err
    lines = answer.out.splitlines()
    start = next(number for number, line in enumerate(lines) if "32 images" in line)
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 4]] == [
        "PyTorch fp32",
        "onnx fp32",
        "onnx int8",
    ]
    assert max(map(len, lines[start : start + 4])) <= 80
    evaluated = process("evaluate", out, trained_run.experiment_file, "--json")
    assert evaluated.code == 0, evaluated.err
    assert 0 <= json.loads(evaluated.out)["metrics"]["accuracy"] <= 1


def test_what_does_not_go_together_is_one_line_each(command, trained_run, tmp_path):
    answer = command(
        "export", trained_run.path, tmp_path / "out", "--precision", "int8", "--preprocess",
        "--prune", "2",
    )  # fmt: skip
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 3
    answer = command("export", trained_run.path, tmp_path / "out", "--pick", "best", "0.5")
    assert answer.code == 2
    assert "allowed fastest-within POINTS" in answer.err
