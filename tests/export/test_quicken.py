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
