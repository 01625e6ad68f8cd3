"""``--engine`` and ``--precision``: the same answers whoever computes, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from gsfl_tune.export import engine as engine_module


def answers(answer):
    assert answer.code == 0, answer.err
    return [
        dict(zip(each["classes"], each["probabilities"], strict=True))
        for each in json.loads(answer.out)
    ]


@pytest.mark.slow  # as evaluations are
def test_predictions_are_the_same_whoever_computes(command, bundle_path, images):
    pytest.importorskip("openvino")
    words = ["predict", bundle_path, *images, "--json", "--top", 6]
    expected = answers(command(*words, "--engine", "torch"))
    assert answers(command(*words)) == expected
    found = answers(command(*words, "--engine", "openvino"))
    assert found != expected
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.slow
def test_predictions_by_onnx_runtime_are_the_same(command, bundle_path, images):
    pytest.importorskip("onnxruntime")
    words = ["predict", bundle_path, *images, "--json", "--top", 6]
    expected = answers(command(*words, "--engine", "torch"))
    for one, other in zip(
        answers(command(*words, "--engine", "onnxruntime")), expected, strict=True
    ):
        assert one == pytest.approx(other, abs=1e-4)


def test_evaluations_and_features_are_the_same_whoever_computes(
    command, trained_run, cache_dir, tmp_path, monkeypatch
):
    pytest.importorskip("openvino")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
    metrics, tables = {}, {}
    for name in ("torch", "openvino"):
        words = [trained_run.best, trained_run.experiment_file, "--engine", name]
        answer = command("evaluate", *words, "--json")
        assert answer.code == 0, answer.err
        metrics[name] = json.loads(answer.out)["metrics"]
        table = tmp_path / f"{name}.parquet"
        assert command("embed", *words, "-o", table).code == 0
        tables[name] = pq.read_table(table).to_pydict()
    assert metrics["openvino"] == pytest.approx(metrics["torch"], abs=1e-3)
    one, other = (torch.tensor(tables[name]["f"]) for name in ("torch", "openvino"))
    torch.testing.assert_close(other, one, atol=1e-5, rtol=0)
    assert not torch.equal(other, one)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "embed", "serve"])
def test_what_is_unknown_is_bad_input(command, bundle_path, images, tmp_path, verb):
    further = {
        "predict": [images[0]],
        "evaluate": [tmp_path],
        "embed": [tmp_path, "-o", tmp_path / "table.parquet"],
        "serve": ["--port", 0],
    }
    words = [verb, bundle_path, *further[verb], "--engine", "tensorrt", "--precision", "fp8"]
    answer = command(*words)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "--engine: found tensorrt, allowed auto, torch, openvino, onnxruntime",
        "--precision: found fp8, allowed fp32, bf16",
    ]


def test_bf16_on_a_cpu_without_it_is_bad_input(command, bundle_path, images, monkeypatch):
    monkeypatch.setattr(engine_module, "has_bf16_units", lambda: False)
    answer = command("predict", bundle_path, images[0], "--precision", "bf16")
    assert answer.code == 2
    assert "found bf16 on a CPU without bf16" in answer.err
