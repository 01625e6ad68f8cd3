"""What a pooling reads of a backbone, and the forward pass of a timm model up to there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

# The feature map (B, C, h, w); class token and positions (B, 1 + h w, C); those of the last n
# blocks side by side (B, 1 + h w, n C); or the vector (B, D) that the model's own head gives to its
# classifier.
Reads = Literal["map", "tokens", "head", "last2", "last4"]

LAST_BLOCKS: dict[str, int] = {"last2": 2, "last4": 4}
"""Number of last blocks that are read."""


def run(model: Any, images: Tensor, reads: Reads) -> Any:
    """Runs a timm model up to what a pooling reads, in timm's own layout.

    Args:
        model: The model, or a part of it that takes activations in place of images.
        images: (B, 3, height, width), or activations.
        reads: The model's own head runs for ``head`` alone.
    """
    features = features_of(model, images, reads)
    return model.forward_head(features, pre_logits=True) if reads == "head" else features


def features_of(model: Any, images: Tensor, reads: Reads) -> Any:
    """Returns what `run` returns before the model's own head.

    Of several blocks each passes through the norm behind the last one (Caron et al., "Emerging
    Properties in Self-Supervised Vision Transformers", ICCV 2021, appendix F).
    """
    if reads not in LAST_BLOCKS:
        return model.forward_features(images)
    blocks = model.forward_intermediates(
        images,
        indices=LAST_BLOCKS[reads],
        return_prefix_tokens=True,
        norm=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return torch.cat([torch.cat([first, others], dim=1) for others, first in blocks], dim=2)


def gives_blocks(model: Any) -> bool:
    """Returns whether timm gives the tokens of single blocks of a model, class tokens too."""
    method = getattr(model, "forward_intermediates", None)
    return method is not None and "return_prefix_tokens" in signature(method).parameters


def full_precision(values: Tensor) -> Tensor:
    """Converts half precision to float32: squares and roots near zero need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def of_unit_size(maps: Tensor) -> Tensor:
    """Divides maps (B, C, h, w) by the root mean square of each image, in full precision."""
    values = full_precision(maps)
    return values / (values.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-6)


def with_gradient_in_layout(maps: Tensor) -> Tensor:
    """Gives the gradient of maps (B, C, h, w) with the channels last in memory the same layout.

    That of a mean over positions has another one. PyTorch's batch norm on the CPU then takes a slow
    way back: 89 in place of 6 ms for a map of 64 x 1280 x 7 x 7 (2.14).
    """
    last = torch.channels_last
    if (
        maps.ndim == 4
        and maps.requires_grad
        and maps.is_contiguous(memory_format=last)
        and not torch.compiler.is_compiling()
    ):
        maps.register_hook(lambda gradient: gradient.contiguous(memory_format=last))
    return maps


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off where it exists: the meta device, which prices models, lacks it."""
    # A program that is being exported lacks it too: its types are fixed.
    if torch.amp.is_autocast_available(device_type) and not torch.compiler.is_exporting():
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
