"""Pruned networks load again; rounding is what int8 does; training helps what it is for."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Options, export_run, load_bundle
from gsfl_tune.export.fake_quant import fake_quantised
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.prune import prune
from gsfl_tune.export.refine import refine
from gsfl_tune.export.runtimes import TorchRuntime
from gsfl_tune.run import RunDirectory
from tests.export.conftest import make_config, make_network

pytest.importorskip("torch_pruning")


@pytest.fixture(scope="module")
def images(trained_run, cache_dir) -> RunImages:
    return RunImages.open(load_bundle(trained_run.best, "cpu"), cache_dir=cache_dir)


def test_rounding_is_that_of_int8_and_goes_away():
    torch.manual_seed(0)
    layer = nn.Linear(6, 3)
    x = torch.randn(5, 6)
    before = copy.deepcopy(layer.state_dict())
    with fake_quantised(layer):
        found = layer(x).detach()
    weight = before["weight"].double()
    scales = weight.abs().amax(dim=1, keepdim=True) / 127
    rounded = (weight / scales).round() * scales
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255
    zero = round(-low / step)
    inputs = ((x.double() / step).round() + zero).clamp(0, 255) - zero
    expected = inputs * step @ rounded.T + before["bias"].double()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float((found - layer(x)).abs().max()) > 1e-4
    assert layer.state_dict().keys() == before.keys()
    assert all(torch.equal(layer.state_dict()[key], before[key]) for key in before)


def test_a_pruned_network_is_smaller_and_learns_again(trained_run, images):
    whole = load_bundle(trained_run.best, "cpu").network
    small = prune(whole, 0.5, 32)
    count, rest = (sum(p.numel() for p in n.backbone.parameters()) for n in (whole, small))
    assert rest < 0.6 * count
    assert small.backbone.channels == whole.backbone.channels
    preprocessing = images.preprocessing
    accuracy = [
        images.accuracy(TorchRuntime(network, preprocessing), "validation")
        for network in (
            small,
            refine(
                small, whole, images, AugmentConfig(flip=False),
                epochs=4, learning_rate=3e-3, device=torch.device("cpu"),
            ),
        )
    ]  # fmt: skip
    assert accuracy[1] > accuracy[0]


@pytest.mark.parametrize(
    ("backbone", "pooling"),
    [
        ("test_convnext", "average"),
        ("test_convnext", "native"),
        ("mobilenetv3_small_050", "native"),
        # The channels of both layers stay.
        ("test_efficientnet@2", "average"),
    ],
)
def test_a_pruned_network_is_built_again(backbone, pooling):
    name, _, layer = backbone.partition("@")
    config = make_config(backbone=name, pooling=pooling, head="plain", layer_b=int(layer or 0))
    network = make_network(config)
    small = prune(network, 0.5, 64)
    count, rest = (sum(p.numel() for p in n.backbone.parameters()) for n in (network, small))
    assert rest < 0.9 * count
    architecture = Architecture.of(config, small, small.head.classifier.out_features)
    again = architecture.build(small.inference_state(), pruned=True)
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.infer(inputs), small.infer(inputs))


def test_refining_repeats_and_leaves_the_teacher_alone(trained_run, images):
    network = load_bundle(trained_run.best, "cpu").network
    before = copy.deepcopy(network.state_dict())
    results = [
        refine(
            network, network, images, AugmentConfig(), epochs=1, learning_rate=1e-3,
            quantised=True, device=torch.device("cpu"),
        ).state_dict()
        for _ in range(2)
    ]  # fmt: skip
    assert results[0].keys() == before.keys()
    for key, tensor in before.items():
        assert torch.equal(results[0][key], results[1][key])
        assert torch.equal(network.state_dict()[key], tensor)
        if "running" in key:
            assert torch.equal(results[0][key], tensor)
    assert not torch.equal(results[0]["head.classifier.weight"], before["head.classifier.weight"])


def _calibrated(run: RunDirectory, path: Path) -> RunDirectory:
    """A copy of a run whose bundle has a temperature."""
    copied = RunDirectory(shutil.copytree(run.path, path))
    file = copied.best / "config.json"
    content = json.loads(file.read_text())
    content["calibration"] = {"temperature": 1.0, "images": 40, "rejections": []}
    file.write_text(json.dumps(content))
    return copied


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"format": "onnx", "precision": "int8", "max_loss": 0.0}, marks=pytest.mark.slow
        ),
    ],
    ids=["safetensors", "onnx int8"],
)
def test_a_pruned_export_loads_and_is_measured(trained_run, cache_dir, tmp_path, squares, options):
    said = []
    run = _calibrated(trained_run, tmp_path / "run")
    out = export_run(
        run.path,
        tmp_path / "out",
        options=Options(prune=0.3, epochs=1, threads=1, seconds=0.0, **options),
        cache_dir=cache_dir,
        say=said.append,
    )
    bundle = load_bundle(out, "cpu")
    assert bundle.export["prune"] == 0.3
    assert bundle.export["refined"]["pruned"] == 1
    (model,) = out.glob("model.*")
    assert model.stat().st_size < (trained_run.best / "model.safetensors").stat().st_size
    assert len(bundle.predict(list(squares[:3]), top=2)) == 3
    before, *_, after = bundle.export["table"]
    assert after["name"].endswith(" -30 %")
    assert before["name"] == "PyTorch fp32"
    assert any("epoch 1/1" in line for line in said)
    # Its temperature and thresholds are those of another network.
    changes = ["pruned", "trained further", "rounded to int8"][: 3 if options else 2]
    (told,) = [line for line in said if "--threshold auto were chosen for the network" in line]
    assert f"before it was {' and '.join(changes)}: " in told
    assert told in (out / "README.md").read_text()


def test_a_backbone_that_cannot_be_pruned_is_named():
    config = make_config(backbone="test_vit")
    with pytest.raises(UserError, match=r"--prune: (test_vit|found nothing)"):
        prune(make_network(config), 0.5, 32)


def test_a_network_that_proposes_regions_is_not_pruned():
    config = make_config(recurrent=True, backbone="test_efficientnet")
    with pytest.raises(
        UserError, match=r"--prune: found 0\.5 for .*recurrent_attention.*allowed: 0"
    ):
        prune(make_network(config), 0.5, 32)
