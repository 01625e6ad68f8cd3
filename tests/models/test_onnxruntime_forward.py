"""ONNX Runtime as who runs a frozen part: the numbers of PyTorch, or a reason why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen_forward import TOLERANCE, EngineRefused
from gsfl_tune.models.int8_forward import int8_forward
from gsfl_tune.models.onnxruntime_forward import onnxruntime_forward

from .test_frozen import distance, images, randomised

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_features_are_those_of_the_backbone_for_any_number_of_images():
    backbone = randomised(create_backbone("test_efficientnet", "none"))
    forward = onnxruntime_forward(backbone, (3, 64, 64))
    # One image, one run, and more than one.
    for count in (1, 8, 11):
        batch = images(count, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, found = backbone(batch), forward(batch)
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert distance(found, expected) <= TOLERANCE["fp32"]


class Unreadable(nn.Module):
    """Calls what has no form in ONNX."""

    def forward(self, images):
        return torch.special.airy_ai(images.mean(dim=(2, 3)))


def test_what_has_no_form_is_refused_with_the_reason(tmp_path):
    with pytest.raises(EngineRefused, match="airy_ai"):
        onnxruntime_forward(Unreadable(), (3, 8, 8))
    batch = torch.rand(4, 3, 8, 8)
    with pytest.raises(EngineRefused, match="airy_ai"):
        int8_forward(Unreadable(), lambda: batch.split(2), tmp_path / "graph.onnx")


def test_int8_multiplies_in_whole_numbers_and_stays_near(tmp_path):
    # One convolution: 8 bits of inputs and weights are half a percent of their range each.
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    batch = torch.rand(16, 3, 12, 12)
    forward, found = int8_forward(module, lambda: batch.split(8), tmp_path / "graph.onnx")
    with torch.inference_mode():
        apart = distance(forward(batch), module(batch))
    assert apart == pytest.approx(found, rel=1e-3)
    assert 1e-4 < apart < 0.05
    assert b"QuantizeLinear" in (tmp_path / "graph.onnx").read_bytes()
