"""Who runs a frozen part on this node: measured once, kept, and never a change of numbers."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import FusedForward, frozen_forward
from gsfl_tune.models.frozen_forward import TOLERANCE, FrozenForward
from gsfl_tune.models.openvino_forward import OpenvinoForward, openvino_forward
from gsfl_tune.training.caches import engines

from ...models.test_openvino_forward import Turning

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("every_engine")

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
    assert isinstance(forward(backbone, tmp_path, 10), FusedForward)
    assert not (tmp_path / "engines").exists()


def test_what_was_measured_is_kept_and_decides(backbone, tmp_path):
    made = forward(backbone, tmp_path, MANY)
    [file] = (tmp_path / "engines").glob("*.json")
    known = json.loads(file.read_text())
    assert known["refused"] == ""
    faster = known["openvino"] > known["torch"]
    assert isinstance(made, OpenvinoForward if faster else FusedForward)
    # Another process of this node reads it.
    file.write_text(json.dumps({"torch": 10.0, "openvino": 20.0}))
    assert isinstance(forward(backbone, tmp_path, 1000), OpenvinoForward)
    assert isinstance(forward(backbone, tmp_path, 50), FusedForward)  # 2.5 s are no gain
    file.write_text(json.dumps({"torch": 20.0, "openvino": 10.0}))
    assert isinstance(forward(backbone, tmp_path, 1000), FusedForward)


def test_switched_off_it_is_not_used(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    assert isinstance(forward(backbone, tmp_path, MANY), FusedForward)
    assert not (tmp_path / "engines").exists()


def test_an_engine_with_other_numbers_is_reported_and_not_used(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made = forward(Turning(), tmp_path, 10**12)
    assert isinstance(made, FusedForward)
    assert "it: OpenVINO is not used: its numbers differ from PyTorch's" in caplog.text
    [file] = (tmp_path / "engines").glob("*.json")
    known = json.loads(file.read_text())
    assert known["openvino"] == 0
    assert "differ" in known["refused"]
    batch = torch.rand(2, 3, 32, 32)
    assert torch.equal(made(batch), 1 - batch)


def test_both_are_frozen_forwards_whose_numbers_agree(backbone):
    images = torch.randn((3, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    expected = backbone(images)
    for made in (frozen_forward(backbone, (3, 64, 64)), openvino_forward(backbone, (3, 64, 64))):
        assert isinstance(made, FrozenForward)
        assert not made.train().training
        found = made.to(torch.device("cpu"))(images)
        distance = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        assert float(distance.max()) <= TOLERANCE["fp32"]
        assert not found.requires_grad
