"""OpenVINO as who runs a frozen part: the numbers of PyTorch, or a reason why not."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import has_bf16_units
from gsfl_tune.models.frozen_forward import TOLERANCE
from gsfl_tune.models.openvino_forward import EngineRefused, openvino_forward

from .test_frozen import distance, images, randomised

pytest.importorskip("openvino")


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet"])
def test_features_are_those_of_the_backbone_for_any_number_of_images(name):
    backbone = randomised(create_backbone(name, "none"))
    forward = openvino_forward(backbone, (3, 64, 64))
    # Less than a request, a whole one, and one that is filled up.
    for count in (1, 4, 7):
        batch = images(count, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, found = backbone(batch), forward(batch)
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert distance(found, expected) <= TOLERANCE["fp32"]


def test_other_sizes_are_converted_anew():
    # TensorFlow's padding depends on the size of the image, and is a constant after a conversion.
    padded = Conv2dSame(3, 4, 3, stride=2)
    forward = openvino_forward(padded, (3, 9, 9))
    batch = images(2, 12, 10)
    with torch.inference_mode():
        assert distance(forward(batch), padded(batch)) <= TOLERANCE["fp32"]


def test_later_changes_of_the_module_do_not_reach_it():
    backbone = randomised(create_backbone("test_efficientnet", "none"))
    forward, batch = openvino_forward(backbone, (3, 32, 32)), images(2, 32, 32)
    before = forward(batch)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(2)
    assert torch.equal(forward(batch), before)


def test_bf16_is_near_and_is_no_fp32():
    if not has_bf16_units():
        pytest.skip("OpenVINO computes in fp32 on a CPU without bf16")
    backbone = randomised(create_backbone("test_convnext", "none"))
    full, half = (openvino_forward(backbone, (3, 64, 64), precision=p) for p in ("fp32", "bf16"))
    batch = images(9, 64, 64)
    assert 1e-4 < distance(half(batch), full(batch)) <= TOLERANCE["bf16"]


class Turning(nn.Module):
    """Decides by a value: a trace keeps what it decided for the example."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if float(batch.abs().sum()) == 0 else 1 - batch


class Unreadable(nn.Module):
    """Calls what no exporter knows."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(batch)


def test_other_numbers_are_refused():
    with pytest.raises(EngineRefused, match=r"differ from PyTorch's by .* allowed 5e-05"):
        openvino_forward(Turning(), (3, 8, 8))


def test_a_model_that_cannot_be_read_is_refused_with_the_reason():
    with pytest.raises(EngineRefused, match="airy"):
        openvino_forward(Unreadable(), (3, 8, 8))
