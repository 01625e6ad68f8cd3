"""Many images: backbones in their fastest form answer as they do in PyTorch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gsfl_tune.export import load_bundle
from gsfl_tune.export.quicken import quickened
from gsfl_tune.models.openvino_forward import OpenvinoForward
from gsfl_tune.training.caches import engines

from .conftest import make_config, make_network

CPU = torch.device("cpu")


def test_answers_are_those_of_pytorch_and_the_bundle_is_as_before(bundle_path, tmp_path):
    pytest.importorskip("openvino")
    bundle = load_bundle(bundle_path, "cpu")
    [network], how = bundle.networks, bundle.preprocessing
    generator = np.random.default_rng(0)
    squares = generator.integers(0, 256, (9, how.side, how.side, 3), dtype=np.uint8)
    expected, plain = bundle.runtime.logits(squares).softmax(1), network.backbone
    cache = tmp_path / "cache"
    with quickened(bundle.networks, how.image_size, 10**9, CPU, cache):
        assert network.backbone is not plain
    # OpenVINO, whichever was faster here.
    [file] = (cache / "engines").glob("*.json")
    file.write_text(json.dumps({"torch": 1.0, "openvino": 2.0}))
    with quickened(bundle.networks, how.image_size, 10**9, CPU, cache):
        assert isinstance(network.backbone, OpenvinoForward)
        found = bundle.runtime.logits(squares).softmax(1)
    assert network.backbone is plain
    assert float((found - expected).abs().max()) < 1e-3
    assert torch.equal(bundle.runtime.logits(squares).softmax(1), expected)


def test_few_images_or_an_unknown_number_change_nothing(bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    bundle = load_bundle(bundle_path, "cpu")
    [network] = bundle.networks
    plain = network.backbone
    for images in (None, 10):
        with quickened(bundle.networks, 32, images, CPU, tmp_path):
            assert network.backbone is plain


@pytest.mark.parametrize("pooling", ["average", "native"])
def test_regions_are_proposed_as_in_pytorch(pooling, tmp_path, monkeypatch):
    """In front of the model's own head the fast form gives no map: it is left out."""
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    network = make_network(
        make_config(recurrent=True, backbone="test_efficientnet", pooling=pooling)
    )
    plain, images = network.backbone, torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.infer(images)
        with quickened([network], 64, 10**9, CPU, tmp_path):
            assert (network.backbone is plain) == (pooling == "native")
            found = network.infer(images)
    assert network.backbone is plain
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
