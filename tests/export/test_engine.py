"""Who answers on a CPU: PyTorch's answers whoever it is, or PyTorch with the reason."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import engine as engine_module
from gsfl_tune.export import extras, load_bundle
from gsfl_tune.export.engine import LIMITS, Engine, engine_runtime, examples, load_for
from gsfl_tune.export.quicken import quickened
from gsfl_tune.export.runtimes import OnnxRuntime, OpenvinoRuntime
from gsfl_tune.models.frozen import FusedForward, has_bf16_units
from gsfl_tune.models.onnxruntime_forward import OnnxruntimeForward, missing_packages
from gsfl_tune.models.openvino_forward import OpenvinoForward
from gsfl_tune.training.caches import engines

CPU = torch.device("cpu")


def squares_of(bundle, images):
    return next(bundle.squares(images))[1]


def probabilities(runtime, squares):
    return runtime.logits(squares).double().softmax(dim=1)


def test_openvino_gives_the_answers_of_pytorch(bundle_path, images):
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_path, "cpu")
    runtime = engine_runtime(bundle, Engine(), threads=2)
    assert isinstance(runtime, OpenvinoRuntime)
    squares = squares_of(bundle, images)
    expected = probabilities(bundle.runtime, squares)
    # Images are told apart, or the comparison would say nothing.
    assert float(expected.std(dim=0).max()) > 0.01
    for count in (1, 3, len(squares)):
        found = probabilities(runtime, squares[:count])
        assert float((found - expected[:count]).abs().max()) < 1e-5


def test_onnx_runtime_gives_the_answers_of_pytorch(bundle_path, images):
    pytest.importorskip("onnxruntime")
    bundle = load_bundle(bundle_path, "cpu")
    runtime = engine_runtime(bundle, Engine("onnxruntime"), threads=2)
    assert isinstance(runtime, OnnxRuntime)
    squares = squares_of(bundle, images)
    expected = probabilities(bundle.runtime, squares)
    for count in (1, 3, len(squares)):
        found = probabilities(runtime, squares[:count])
        assert float((found - expected[:count]).abs().max()) < 1e-5


def test_pytorch_answers_where_it_is_asked_for_or_openvino_is_switched_off(
    bundle_path, monkeypatch
):
    bundle = load_bundle(bundle_path, "cpu")
    assert engine_runtime(bundle, Engine("torch"), threads=1) is None
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    assert engine_runtime(bundle, Engine(), threads=1) is None


class Turning(nn.Module):
    """Depends on whether images differ: a trace keeps what the example of equal images did."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, maps):
        means = maps.mean(dim=(2, 3))
        return means if float((maps - maps[:1]).abs().max()) == 0 else -means


class Unreadable(Turning):
    """Calls what OpenVINO does not know."""

    def forward(self, maps):
        return torch.special.airy_ai(maps.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Turning, "its probabilities differ from PyTorch's by"), (Unreadable, "airy_ai")],
)
@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_other_numbers_and_unreadable_models_fall_back_with_the_reason(
    bundle_path, caplog, kind, said, name
):
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_path, "cpu")
    bundle.network.pooling = kind(bundle.network.pooling.dim)
    with caplog.at_level(logging.WARNING):
        assert engine_runtime(bundle, Engine(name), threads=1) is None
    (line,) = caplog.messages
    assert line.startswith("OpenVINO is not used, PyTorch answers: ")
    assert said in line


@pytest.mark.slow
def test_what_onnx_runtime_cannot_run_falls_back_with_the_reason(bundle_path, tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    bundle = load_bundle(bundle_path, "cpu")
    bundle.network.pooling = Unreadable(bundle.network.pooling.dim)
    with caplog.at_level(logging.WARNING):
        assert engine_runtime(bundle, Engine("onnxruntime"), threads=1) is None
    (line,) = caplog.messages
    assert line.startswith("ONNX Runtime is not used, PyTorch answers: ")
    assert "airy_ai" in line


@pytest.mark.slow
def test_other_answers_of_onnx_runtime_are_not_used(bundle_path, caplog, monkeypatch):
    pytest.importorskip("onnxruntime")
    bundle = load_bundle(bundle_path, "cpu")
    # No engine rounds as PyTorch does.
    monkeypatch.setitem(LIMITS, "fp32", 0.0)
    with caplog.at_level(logging.WARNING):
        assert engine_runtime(bundle, Engine("onnxruntime"), threads=1) is None
    assert "its probabilities differ from PyTorch's by" in caplog.messages[0]


@pytest.mark.slow
def test_few_images_take_the_engine_that_was_asked_for(bundle_path, images, tmp_path):
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_path, "cpu")
    [network], size = bundle.networks, bundle.preprocessing.image_size
    squares, plain = squares_of(bundle, images), network.backbone
    expected = probabilities(bundle.runtime, squares)
    kinds = {"openvino": OpenvinoForward, "torch": type(plain), "auto": type(plain)}
    if not missing_packages():
        kinds["onnxruntime"] = OnnxruntimeForward
    for name, kind in kinds.items():
        with quickened(bundle.networks, size, None, CPU, tmp_path, Engine(name)):
            assert isinstance(network.backbone, kind)
            found = probabilities(bundle.runtime, squares)
        assert network.backbone is plain
        assert float((found - expected).abs().max()) < 1e-4


def test_many_images_fall_back_with_the_reason(bundle_path, tmp_path, caplog, monkeypatch):
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_path, "cpu")
    [network], size = bundle.networks, bundle.preprocessing.image_size
    # No engine rounds as PyTorch does.
    monkeypatch.setitem(LIMITS, "fp32", 0.0)
    with (
        caplog.at_level(logging.WARNING),
        quickened(bundle.networks, size, 10**6, CPU, tmp_path, Engine("openvino")),
    ):
        assert isinstance(network.backbone, FusedForward)
    (line,) = caplog.messages
    assert "OpenVINO is not used: its probabilities differ from PyTorch's by" in line


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_near_and_is_no_fp32(bundle_path, images, tmp_path, name):
    pytest.importorskip("openvino")
    if not has_bf16_units():
        pytest.skip("this CPU has no bf16")
    bundle = load_bundle(bundle_path, "cpu")
    squares = squares_of(bundle, images)
    expected = probabilities(bundle.runtime, squares)
    size = bundle.preprocessing.image_size
    with quickened(bundle.networks, size, None, CPU, tmp_path, Engine(name, "bf16")):
        found = probabilities(bundle.runtime, squares)
    assert 1e-6 < float((found - expected).abs().max()) < LIMITS["bf16"]


def test_what_is_unknown_is_one_line_each():
    with pytest.raises(UserError) as caught:
        Engine.of("tensorrt", "int4")
    assert str(caught.value).splitlines() == [
        "--engine: found tensorrt, allowed auto, torch, openvino, onnxruntime",
        "--precision: found int4, allowed fp32, bf16",
    ]


def test_bf16_is_refused_on_a_cpu_without_it(monkeypatch):
    monkeypatch.setattr(engine_module, "has_bf16_units", lambda: False)
    with pytest.raises(UserError, match=r"found bf16 on a CPU without bf16 .* allowed fp32"):
        Engine.of("auto", "bf16")


def test_an_engine_that_is_not_installed_is_told_with_the_command(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--engine openvino needs openvino: .*gsfl-tune\[cpu\]"):
        Engine.of("openvino", "fp32")
    words = r"--engine onnxruntime needs onnx and onnxscript and onnxruntime: .*gsfl-tune\[export\]"
    with pytest.raises(UserError, match=words):
        Engine.of("onnxruntime", "fp32")


def test_onnx_runtime_computes_in_fp32(monkeypatch):
    monkeypatch.setattr(engine_module, "has_bf16_units", lambda: True)
    with pytest.raises(UserError, match=r"found bf16 with --engine onnxruntime, .* allowed fp32"):
        Engine.of("onnxruntime", "bf16")


def test_a_file_of_another_runtime_has_its_own(bundle_path):
    bundle = load_bundle(bundle_path, "cpu")
    exported = replace(bundle, export={"format": "onnx"})
    Engine().check(exported)
    for engine in (Engine("openvino"), Engine("torch"), Engine("auto", "bf16")):
        with pytest.raises(UserError, match=r"exported as onnx, .* allowed: a bundle of safetens"):
            engine.check(exported)
    Engine("openvino", "bf16").check(replace(bundle, export={"format": "openvino"}))
    Engine("onnxruntime").check(exported)
    with pytest.raises(UserError, match="exported as torch-export"):
        Engine("onnxruntime").check(replace(bundle, export={"format": "torch-export"}))


def test_a_bundle_is_loaded_on_the_cpu_for_what_only_cpus_have(bundle_path):
    assert load_for(Engine("openvino"), bundle_path).device == CPU
    assert Engine("auto", "bf16").device == Engine("onnxruntime").device == "cpu"
    assert Engine().device == Engine("torch").device == "auto"


def test_examples_differ_and_are_the_same_every_time():
    squares = examples(40)
    assert (squares.shape, squares.dtype) == ((8, 40, 40, 3), np.uint8)
    assert np.array_equal(squares, examples(40))
    assert squares.std() > 20
    assert len(np.unique(squares.reshape(8, -1), axis=0)) == 8
