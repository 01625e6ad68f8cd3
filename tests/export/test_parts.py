"""A network with parts, attention or further classifiers says the same in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.export.graph import Deployed
from gsfl_tune.export.prune import prune
from gsfl_tune.export.quicken import quickened
from gsfl_tune.training.caches import engines
from tests.export.conftest import CLASSES, make_config, make_network

MODELS = [
    {"backbone": "test_efficientnet"},
    pytest.param({"backbone": "test_resnet"}, marks=pytest.mark.slow),
    pytest.param({"backbone": "test_convnext", "pooling": "native"}, marks=pytest.mark.slow),
    pytest.param({"backbone": "test_vit", "head": "plain"}, marks=pytest.mark.slow),
]
SIDE = 74
# What is joined to features or scores: the argument of `make_config`, and the network's module.
KINDS = ("parts", "attention", "granularities")


def deployed(model, kind):
    network = make_network(make_config(**{kind: True}, **model))
    with torch.no_grad():  # else one class has it all
        network.head.classifier.weight.mul_(0.05)
    module = Deployed(network, Preprocessing(64, SIDE, "crop", [0.5] * 3, [0.3] * 3), inside=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        expected = module(images).numpy()
        own = module.network  # a copy
        joined = getattr(own, kind)
        setattr(own, kind, None)
        assert np.abs(module(images).numpy() - expected).max() > 1e-3  # it counts
        setattr(own, kind, joined)
    return module, images, expected


@pytest.mark.parametrize(
    "kind", [*KINDS[:2], pytest.param("granularities", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["backbone"])
def test_onnx_gives_what_pytorch_does(tmp_path, model, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from gsfl_tune.export.onnx_file import write_onnx

    module, images, expected = deployed(model, kind)
    write_onnx(module, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"images": images.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["backbone"])
def test_other_formats_too(tmp_path, model, kind):
    from gsfl_tune.export.exported_file import capture

    module, images, expected = deployed(model, kind)
    with torch.no_grad():
        found = capture(module, module.example()).module()(images)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    pytest.importorskip("openvino")
    from gsfl_tune.export.openvino_file import convert_module, plain_run, write_model

    write_model(convert_module(module), tmp_path / "model.xml", half=False)
    found = plain_run(tmp_path / "model.xml")(images)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_has_what_is_joined(tmp_path, kind):
    config = make_config(**{kind: True}, backbone="test_efficientnet", pooling="gem")
    network = make_network(config)
    path = bundle_from_network(
        tmp_path, network, config, classes=CLASSES, groups=None, side=37, metrics={}
    )
    found = load_bundle(path, "cpu").network
    assert getattr(found, kind).settings == getattr(network, kind).settings
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(found.infer(images), network.infer(images))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["average", "native"])
def test_it_sees_on_a_fast_backbone_what_it_does_in_pytorch(pooling, kind, tmp_path, monkeypatch):
    """In front of the model's own head the fast form gives no map: it is left out."""
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    network = make_network(make_config(**{kind: True}, backbone="test_convnext", pooling=pooling))
    plain, images = network.backbone, torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.infer(images)
        with quickened([network], 64, 10**9, torch.device("cpu"), tmp_path):
            # Nor what enters its blocks.
            none = pooling == "native" or kind == "granularities"
            assert (network.backbone is plain) == none
            found = network.infer(images)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("parts", "part_rcnn"),
        ("attention", "counterfactual_attention"),
        ("granularities", r"pmg\.prediction: joint"),
    ],
)
def test_it_is_not_pruned(kind, method):
    config = make_config(**{kind: True}, backbone="test_efficientnet")
    with pytest.raises(UserError, match=rf"--prune: found 0\.5 for .*{method}.*allowed: 0"):
        prune(make_network(config), 0.5, 32)
