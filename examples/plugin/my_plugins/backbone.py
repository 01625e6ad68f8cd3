"""A small convolutional network, registered with timm."""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

default_cfgs = generate_default_cfgs(
    # With weights: {"url": "https://..."} or {"file": "/shared/texture_net.safetensors"}.
    {"texture_net": {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.25,) * 3}}
)


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class TextureNet(nn.Module):
    """Four blocks, each of which halves the side."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 128
        self.stem = _block(in_chans, 32)
        self.blocks = nn.Sequential(_block(32, 64), _block(64, 96), _block(96, self.num_features))
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """The blocks that `training.finetune.blocks` counts, by their parameters' names."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def forward_features(self, images: Tensor) -> Tensor:
        """The feature map (B, C, h, w): the one method that gsfl-tune calls."""
        return self.blocks(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        return self.head(torch.mean(self.forward_features(images), dim=(2, 3)))


@register_model
def texture_net(pretrained: bool = False, **options: Any) -> TextureNet:
    """Creates it; the name of this function is the name of the model."""
    return build_model_with_cfg(TextureNet, "texture_net", pretrained, **options)
