"""What a pooling reads of a backbone, and the forward pass of a timm model up to there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

# The feature map (B, C, h, w); class token and positions (B, 1 + h w, C); or the vector (B, D)
# that the model's own head gives to its classifier.
Reads = Literal["map", "tokens", "head"]


def run(model: Any, images: Tensor, reads: Reads) -> Any:
    """Runs a timm model up to what a pooling reads, in timm's own layout.

    Args:
        model: The model, or a part of it that takes activations in place of images.
        images: (B, 3, height, width), or activations.
        reads: The model's own head runs for ``head`` alone.
    """
    features = model.forward_features(images)
    return model.forward_head(features, pre_logits=True) if reads == "head" else features


def full_precision(values: Tensor) -> Tensor:
    """Converts half precision to float32: squares and roots near zero need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off where it exists: the meta device, which prices models, lacks it."""
    # A program that is being exported lacks it too: its types are fixed.
    if torch.amp.is_autocast_available(device_type) and not torch.compiler.is_exporting():
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
