"""``export --precision int8``: `--max-loss` decides whether what rounding costs is trained away.

A real network of four colours, trained until it tells them apart, whose last features were then
rescaled: in fp32 it says what it said, in int8 one large feature leaves the others hardly a level.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.export.images import RunImages
from gsfl_tune.run import RunDirectory
from gsfl_tune.training import Training, Workspace
from tests.colours import write_colours

pytest.importorskip("torchao")
pytest.importorskip("onnxruntime")

FORMATS = ["onnx", "torch-export"]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> RunDirectory:
    folder = tmp_path_factory.mktemp("fragile")
    write_colours(folder / "images", 32, train=48, val=24, test=12)
    content = {
        "name": "colours",
        "data": {"source": "folder", "path": str(folder / "images"), "image_size": 32},
        "model": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "latent_dim": 32,
            "dropout": 0.0,
            "groups": {"count": 2, "method": "random"},
        },
        "training": {"device": "cpu", "head": {"epochs": 15, "learning_rate": 3e-3}},
    }
    config = Config.model_validate(content)
    run = RunDirectory(folder / "run")
    workspace = Workspace.open(config.data, side=37, cache_dir=cache_dir)
    training = Training(config, workspace, run.path / "training")
    while not training.finished:
        training.run_epoch()
    network = training.trained_network()
    squares = workspace.dataset.pool.gather(workspace.dataset.train_index)
    about: dict[str, Any] = {"classes": workspace.dataset.classes, "groups": None, "side": 37}
    # Once as it was, to prepare images as the bundle does.
    bundle_from_network(folder / "as-trained", network, config, metrics={}, **about)
    images = RunImages.open(load_bundle(folder / "as-trained", "cpu"), cache_dir=cache_dir)
    _make_fragile(network, images.inputs(squares, inside=False))
    bundle_from_network(run.best, network, config, metrics={}, **about)
    return run


@torch.no_grad()
def _make_fragile(network: torch.nn.Module, inputs: torch.Tensor) -> None:
    seen = []
    hook = network.head.discriminative.register_forward_hook(lambda *call: seen.append(call[2]))
    network.infer(inputs)
    hook.remove()
    (features,) = seen
    largest = features.amax(dim=0)
    unit = int(largest.argmax())
    typical = features[features > 0].median()
    # 255 levels reach to the largest value: a typical one of the others is 1.5 of them.
    factor = 170 * typical / largest[unit]
    encoder = network.head.discriminative[-2]
    encoder.weight[unit] *= factor
    encoder.bias[unit] *= factor
    network.head.classifier.weight[:, unit] /= factor
    # What the largest logit is does not change; a training of few steps can change it.
    network.head.classifier.weight /= 50
    network.head.classifier.bias /= 50


@pytest.fixture
def export(process: Any, fragile: RunDirectory, cache_dir: Path, tmp_path: Path) -> Any:
    def run(**options: object) -> tuple[dict[str, Any], str, Path]:
        out = tmp_path / "out"
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        fast = ["--precision=int8", "--threads=1", "--seconds=0"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GSFL_TUNE_CACHE", str(cache_dir))
            answer = process("export", fragile.path, out, *fast, *words)
        assert answer.code == 0, answer.err
        info = json.loads((out / "config.json").read_text())["export"]
        return info, answer.out, out

    return run


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_costs_too_much_is_trained_and_both_are_in_the_table(export: Any, format: str) -> None:
    info, said, out = export(format=format, max_loss=0.5, epochs=20)
    assert re.search(r"int8 costs [\d.]+ points on the validation images, more than 0.5", said)
    assert "epoch 20/20" in said
    assert info["refined"] == {"int8": 20}
    names = [row["name"] for row in info["table"]]
    assert names[0] == "PyTorch fp32"
    assert names[-2:] == ["int8 untrained", f"{format} int8"]
    whole, (before, after) = info["table"][0], info["table"][-2:]
    assert before["validation"] < whole["validation"] - 0.005
    assert after["validation"] > before["validation"]
    assert "| int8 untrained |" in (out / "README.md").read_text()
    # What is in the file is what the last row was measured of.
    bundle = load_bundle(out, "cpu")
    folder = Path(bundle.config["data"]["path"]) / "test"
    files = sorted(folder.rglob("*.png"))
    right = [
        prediction.classes[0] == file.parent.name
        for file, prediction in zip(files, bundle.predict(files, top=1), strict=True)
    ]
    assert np.mean(right) == pytest.approx(after["test"])


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_may_be_lost_is_not_trained_for(export: Any, format: str) -> None:
    info, said, _ = export(format=format, max_loss=100, epochs=20)
    assert "epoch 1/" not in said
    assert re.search(r"int8 costs [1-9]\d?\.\d\d points on the validation images\n", said)
    assert info["refined"] == {}
    assert "int8 untrained" not in [row["name"] for row in info["table"]]
