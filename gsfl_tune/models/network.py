"""The whole network: backbone, projection, pooling, head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.models.backbones import Backbone
from gsfl_tune.models.bilinear_attention import BilinearAttention
from gsfl_tune.models.granularities import Granular, Granularities
from gsfl_tune.models.heads import INFERENCE_PARTS, HeadOutput, PlainHead
from gsfl_tune.models.part_detector import Detections, PartDetector
from gsfl_tune.models.pooling import Pooling
from gsfl_tune.models.projection import Projection
from gsfl_tune.models.recurrent_attention import RecurrentAttention
from gsfl_tune.models.restitution import RESTITUTED

# As in torch's `normalize`.
_SHORTEST = 1e-12


class Network(nn.Module):
    """Maps normalised images to the output of a head.

    Args:
        backbone: Maps images to feature maps, or to what else the pooling reads.
        projection: Reduces the channels of a map, or None.
        pooling: Maps these to vectors.
        head: Maps unit features to `HeadOutput`.
        recurrent: Regions that are seen too; their maps are those in front of the pooling.
        parts: Finds parts on that map, and joins their features to unit features.
        attention: Attends to places of that map, and joins what is there to unit features.
        granularities: Classifies maps behind several blocks; what they say is added to the scores
            of the head.

    Raises:
        ValueError: If the sizes of the parts do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone,
        projection: Projection | None,
        pooling: Pooling,
        head: PlainHead,
        recurrent: RecurrentAttention | None = None,
        parts: PartDetector | None = None,
        attention: BilinearAttention | None = None,
        granularities: Granularities | None = None,
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
        self.recurrent = recurrent
        self.parts = parts
        self.attention = attention
        self.granularities = granularities
        if granularities is not None:
            granularities.attach(backbone.model)

    @property
    def joins(self) -> bool:
        """Returns whether features of the map are joined to those of the pooling."""
        return self.parts is not None or self.attention is not None

    @property
    def reads_maps(self) -> bool:
        """Returns whether features need maps beside what the pooling reads, which is another."""
        further = self.recurrent is not None or self.joins or self.granularities is not None
        return further and self.pooling.reads != "map"

    def pool(self, maps: Tensor) -> Tensor:
        """Returns unit features f (B, D), float32, of maps (B, C, h, w), or what else is read.

        With parts or attention they are joint features; then it needs maps, see `reads_maps`.
        """
        return self._joined(self._vectors(maps), maps)

    def pool_maps(self, maps: Tensor, *, fixed_length: bool = False) -> Tensor:
        """Returns unit features of maps (B, C, h, w), for a backbone with `Backbone.gives_map`.

        Args:
            maps: Of `maps`.
            fixed_length: Whether the length that vectors are divided by counts as a constant in
                gradients. The value is the same.
        """
        return self._joined(self._vectors(self.backbone.read_maps(maps)), maps, fixed_length)

    def pool_parts(self, maps: Tensor) -> tuple[Tensor, Detections]:
        """Returns joint unit features (B, D) of maps (B, C, h, w), and the parts found on them.

        Raises:
            ValueError: If the network finds none.
        """
        if self.parts is None:
            raise ValueError("the network finds no parts")
        unit = F.normalize(self._vectors(self.backbone.read_maps(maps)), dim=1)
        joint, found = self.parts(unit, maps)
        unit = F.normalize(joint, dim=1)
        if self.attention is not None:
            unit = F.normalize(self.attention(unit, maps)[0], dim=1)
        return unit, found

    def pool_attended(self, maps: Tensor, instead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns joint unit features (B, D) of maps (B, C, h, w), and the attention to them.

        Args:
            maps: Of `maps`.
            instead: (B, M, h, w) attention in place of the network's own.

        Raises:
            ValueError: If the network has none.
        """
        if self.attention is None:
            raise ValueError("the network has no attention maps")
        unit = F.normalize(self._vectors(self.backbone.read_maps(maps)), dim=1)
        if self.parts is not None:
            unit = F.normalize(self.parts(unit, maps)[0], dim=1)
        joint, attention = self.attention(unit, maps, instead)
        return F.normalize(joint, dim=1), attention

    def maps(self, images: Tensor) -> Tensor:
        """Returns the maps (B, C, h, w) in front of the pooling; see `Backbone.gives_map`."""
        return self.backbone.maps(images)

    def _joined(self, vectors: Tensor, maps: Tensor, fixed_length: bool = False) -> Tensor:
        """Returns unit features of pooled vectors (B, D) and what is joined to them."""
        unit = _unit(vectors, fixed_length)
        for module in (self.parts, self.attention):
            if module is not None:
                unit = _unit(module(unit, maps)[0], fixed_length)
        return unit

    def _vectors(self, read: Tensor) -> Tensor:
        if self.projection is not None:
            read = self.projection(read)
        vectors: Tensor = self.pooling(read)
        return vectors

    def features(self, images: Tensor) -> Tensor:
        """Returns unit features f (B, D), float32, of normalised images (B, 3, height, width).

        With recurrent attention they are the joint ones of all scales, with parts or attention
        maps those of the whole and of what is found in it. With granularities (B, D + C): behind
        them is what these add to the scores, see `gsfl_tune.models.PlainHead.divided`.
        """
        if self.granularities is not None:
            return self.granular(lambda: self.maps(images)).joined()
        if self.recurrent is None:
            if self.reads_maps:
                return self.pool_maps(self.maps(images))
            return self.pool(self.backbone(images))
        if self.pooling.reads == "map":
            # A fast form of the backbone gives nothing else.
            return self.recurrent.features(images, self.backbone, self.pool)
        return self.recurrent.features(images, self.maps, self.pool_maps)

    def granular(self, run: Callable[[], Tensor]) -> Granular:
        """Returns the features and the scores of several classifiers, of a pass.

        Args:
            run: Takes the pass through the backbone; returns the maps in front of the pooling.

        Raises:
            ValueError: If the network has one classifier alone.
        """
        if self.granularities is None:
            raise ValueError("the network has no classifiers behind its blocks")
        with self.granularities.noting() as noted:
            last = run()
            maps = [last, *(self.backbone.as_map(each) for each in noted())]
        return Granular(self.pool_maps(last), *self.granularities(maps))

    def extras(self) -> dict[str, Any]:
        """Returns what the last pass that was trained adds to what terms of the loss read, once."""
        module = self.backbone.restitution
        parts = None if module is None else module.take()
        return {} if parts is None else {RESTITUTED: parts}

    def forward(self, images: Tensor) -> HeadOutput:
        """Runs all parts on normalised images (B, 3, height, width)."""
        output: HeadOutput = self.head(self.features(images))
        return output

    def infer(self, images: Tensor) -> Tensor:
        """Returns logits (B, C) without the shared branch."""
        return self.classify(self.features(images))

    def classify(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of what `features` gives, in the precision of the head."""
        return self.head.infer(features.to(self.head.classifier.weight.dtype))

    def having(self, head: PlainHead) -> Network:
        """Returns a network of the same parts with another head."""
        further = self.recurrent, self.parts, self.attention, self.granularities
        return Network(self.backbone, self.projection, self.pooling, head, *further)

    def inference_state(self) -> dict[str, Tensor]:
        """Returns the tensors that inference needs; a network with a plain head loads them."""
        return {
            k: v
            for k, v in self.state_dict().items()
            if not k.startswith("head.") or k.split(".")[1] in INFERENCE_PARTS
        }


def _unit(vectors: Tensor, fixed_length: bool) -> Tensor:
    """Divides vectors (B, D) by their lengths, which may count as constants in gradients."""
    if not fixed_length:
        return F.normalize(vectors, dim=1)
    length = vectors.detach().norm(dim=1, keepdim=True)
    return vectors / length.clamp(min=_SHORTEST)
