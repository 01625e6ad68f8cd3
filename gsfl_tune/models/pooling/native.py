"""The pooling that the model itself has between its feature map and its classifier.

Sources: the papers of the models; timm's ``forward_head(.., pre_logits=True)`` says what each does.
"""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.models._reads import full_precision
from gsfl_tune.models.pooling._base import Pooling


class NativePooling(Pooling):
    """Takes what the classifier of the pretrained model was trained on; D is the model's.

    The mean of the map for most convolutional models, with the norm behind it where there is one
    (ConvNeXt, BEiT, EVA-02, Hiera, MaxViT); the class token (DeiT, DINO); attention pooling
    (SigLIP, PE); a convolution behind the mean (MobileNetV3). The layers belong to the backbone:
    to its weights, its digest, and, when they are trained, to its last blocks.
    """

    reads = "head"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Passes on the vectors (B, D) of the model's own head."""
        return full_precision(maps)
