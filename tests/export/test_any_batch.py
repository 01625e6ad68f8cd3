"""A file takes batches of every size, or it is not written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.bundles import files
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import exported_file, onnx_file, openvino_file
from gsfl_tune.export.graph import Deployed, require_any_batch
from gsfl_tune.export.runtimes import ExportedRuntime, OnnxRuntime, OpenvinoRuntime
from gsfl_tune.models import Network, PlainHead, create_backbone, create_pooling, probe
from gsfl_tune.models.pooling import AveragePooling

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PREPROCESSING = Preprocessing(64, 74, "crop", [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])


class CountingPooling(AveragePooling):
    """Counts the images of a batch in Python, as an exporter must not see it."""

    def forward(self, maps):
        return super().forward(maps) + maps.new_zeros(len(maps), self.dim)


class BesselPooling(AveragePooling):
    """Computes what ONNX has no operation for."""

    def forward(self, maps):
        return torch.special.bessel_j0(super().forward(maps))


def deployed(pooling, name="test_resnet") -> Deployed:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = create_backbone(name, "none")
    made = pooling(backbone.channels)
    head = PlainHead(made.dim, 3, latent_dim=8, dropout=0.0, feature_scale=8.0)
    return Deployed(Network(backbone, None, made, head), PREPROCESSING, inside=False)


def write(name, module, path):
    if name == "onnx":
        onnx_file.write_onnx(module, path)
        return OnnxRuntime(path, PREPROCESSING, inside=False)
    if name == "openvino":
        openvino_file.write_model(openvino_file.convert_module(module), path, half=False)
        return OpenvinoRuntime(path, PREPROCESSING, inside=False)
    program = exported_file.capture(module, module.example())
    exported_file.write_program(program, path, {})
    return ExportedRuntime(path, PREPROCESSING, inside=False)


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        pytest.param("onnx", "test_resnet", marks=pytest.mark.slow),
        pytest.param("torch-export", "test_resnet", marks=pytest.mark.slow),
        ("openvino", "test_resnet"),
        pytest.param("onnx", "test_resnet+test_vit", marks=pytest.mark.slow),
        pytest.param("torch-export", "test_resnet+test_vit", marks=pytest.mark.slow),
        pytest.param("openvino", "test_resnet+test_vit", marks=pytest.mark.slow),
        ("onnx", "test_efficientnet@2"),
        ("torch-export", "test_efficientnet@2"),
        ("openvino", "test_efficientnet@2"),
    ],
)
def test_compact_bilinear_pooling_is_exported_for_every_batch(name, streams, tmp_path):
    second = probe(streams).second_channels
    module = deployed(
        lambda channels: create_pooling("compact_bilinear", channels, dim=128, second=second),
        streams,
    )
    runtime = write(name, module, tmp_path / files.MODELS[name])
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = module(images)
            torch.testing.assert_close(runtime.run(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["openvino", *(pytest.param(n, marks=pytest.mark.slow) for n in ("onnx", "torch-export"))],
)
def test_restitution_is_written_with_what_it_learned(name, tmp_path):
    module = deployed(AveragePooling)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = module.network.backbone
    backbone.restitute(1, 64)
    for parameter in backbone.restitution.parameters():
        torch.nn.init.normal_(parameter, 0.5)
    runtime = write(name, module.eval(), tmp_path / files.MODELS[name])
    with torch.inference_mode():
        torch.testing.assert_close(runtime.run(images), module(images), atol=1e-4, rtol=1e-4)
        without = deployed(AveragePooling)(images)
    assert (module(images) - without).abs().max() > 1e-3


@pytest.mark.slow
def test_attention_pooling_is_written_with_what_it_learned(tmp_path):
    def pooling(channels):
        made = create_pooling("attention", channels, heads=4)
        torch.nn.init.normal_(made.queries, std=30.0)
        return made

    module = deployed(pooling)
    runtime = write("onnx", module, tmp_path / files.MODELS["onnx"])
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(runtime.run(images), module(images), atol=1e-4, rtol=1e-4)
        mean = deployed(lambda channels: create_pooling("average", channels))(images)
    assert (module(images) - mean).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["onnx", "torch-export", "openvino"])
def test_a_network_that_fixes_the_batch_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"--format {name}: .*batch.*allowed"):
        write(name, deployed(CountingPooling), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_onnx_does_not_know_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"cannot be exported \(.*bessel_j0.*allowed: .*torch-export"
    ):
        write("onnx", deployed(BesselPooling), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ([2, 12288], r"cannot run a batch of 1 \("),
        ([1, -1], "gives 1 rows for a batch of 3"),
    ],
)
def test_a_file_that_only_says_that_its_batch_is_free_is_refused(shape, found, tmp_path):
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    shapes = onnx.numpy_helper.from_array(np.array(shape), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["logits"])],
        "fixed inside",
        [helper.make_tensor_value_info("images", floats, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", floats, ["batch", None])],
        [shapes],
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    runtime = OnnxRuntime(path, PREPROCESSING, inside=False)
    with pytest.raises(UserError, match=found):
        require_any_batch("onnx", runtime.run, deployed(AveragePooling))
