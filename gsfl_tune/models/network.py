"""The whole network: backbone, projection, pooling, head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.models.backbones import Backbone
from gsfl_tune.models.heads import INFERENCE_PARTS, HeadOutput, PlainHead
from gsfl_tune.models.pooling import Pooling
from gsfl_tune.models.projection import Projection


class Network(nn.Module):
    """Maps normalised images to the output of a head.

    Args:
        backbone: Maps images to feature maps, or to what else the pooling reads.
        projection: Reduces the channels of a map, or None.
        pooling: Maps these to vectors.
        head: Maps unit features to `HeadOutput`.

    Raises:
        ValueError: If the sizes of the parts do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone,
        projection: Projection | None,
        pooling: Pooling,
        head: PlainHead,
    ) -> None:
        super().__init__()
        channels = projection.channels if projection else backbone.channels
        if pooling.channels != channels or head.feature_dim != pooling.dim:
            raise ValueError(
                f"the parts do not fit: {channels} channels, pooling from {pooling.channels} to "
                f"{pooling.dim}, head for {head.feature_dim}"
            )
        self.backbone = backbone
        self.projection = projection
        self.pooling = pooling
        self.head = head

    def pool(self, maps: Tensor) -> Tensor:
        """Returns unit features f (B, D), float32, of maps (B, C, h, w), or what else is read."""
        if self.projection is not None:
            maps = self.projection(maps)
        return F.normalize(self.pooling(maps), dim=1)

    def features(self, images: Tensor) -> Tensor:
        """Returns unit features f (B, D), float32, of normalised images (B, 3, height, width)."""
        return self.pool(self.backbone(images))

    def forward(self, images: Tensor) -> HeadOutput:
        """Runs all parts on normalised images (B, 3, height, width)."""
        output: HeadOutput = self.head(self.features(images))
        return output

    def infer(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) without the shared branch."""
        return self.classify(self.features(images))

    def classify(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of unit features (B, D), in the precision of the head."""
        return self.head.infer(features.to(self.head.classifier.weight.dtype))

    def inference_state(self) -> dict[str, Tensor]:
        """Returns the tensors that inference needs; a network with a plain head loads them."""
        return {
            k: v
            for k, v in self.state_dict().items()
            if not k.startswith("head.") or k.split(".")[1] in INFERENCE_PARTS
        }
