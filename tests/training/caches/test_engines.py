"""Who runs a frozen part on this node: measured once, kept, and never a change of numbers."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import FrozenForward
from gsfl_tune.models.openvino_forward import OpenvinoForward
from gsfl_tune.training.caches import engines

from ...models.test_openvino_forward import Turning

pytest.importorskip("openvino")

CPU = torch.device("cpu")
MANY = 10**9


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("test_efficientnet", "none")


def forward(module, cache, images, precision="fp32"):
    return engines.fast_forward(
        module, (3, 32, 32), precision=precision, name="it", images=images, device=CPU,
        cache_dir=cache,
    )  # fmt: skip


def test_few_images_are_not_worth_a_measurement(backbone, tmp_path):
    assert isinstance(forward(backbone, tmp_path, 10), FrozenForward)
    assert not (tmp_path / "engines").exists()


def test_what_was_measured_is_kept_and_decides(backbone, tmp_path):
    made = forward(backbone, tmp_path, MANY)
    [file] = (tmp_path / "engines").glob("*.json")
    known = json.loads(file.read_text())
    assert known["refused"] == ""
    faster = known["openvino"] > known["torch"]
    assert isinstance(made, OpenvinoForward if faster else FrozenForward)
    # Another process of this node reads it.
    file.write_text(json.dumps({"torch": 10.0, "openvino": 20.0}))
    assert isinstance(forward(backbone, tmp_path, 1000), OpenvinoForward)
    assert isinstance(forward(backbone, tmp_path, 50), FrozenForward)  # 2.5 s are no gain
    file.write_text(json.dumps({"torch": 20.0, "openvino": 10.0}))
    assert isinstance(forward(backbone, tmp_path, 1000), FrozenForward)


def test_switched_off_it_is_not_used(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    assert isinstance(forward(backbone, tmp_path, MANY), FrozenForward)
    assert not (tmp_path / "engines").exists()


def test_an_engine_with_other_numbers_is_reported_and_not_used(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made = forward(Turning(), tmp_path, 10**12)
    assert isinstance(made, FrozenForward)
    assert "it: OpenVINO is not used: its numbers differ from PyTorch's" in caplog.text
    [file] = (tmp_path / "engines").glob("*.json")
    known = json.loads(file.read_text())
    assert known["openvino"] == 0
    assert "differ" in known["refused"]
    batch = torch.rand(2, 3, 32, 32)
    assert torch.equal(made(batch), 1 - batch)
