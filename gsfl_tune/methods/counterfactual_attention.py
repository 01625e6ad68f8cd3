"""Counterfactual attention: what the network attends to shall help more than random attention.

Source: Rao et al., "Counterfactual Attention Learning for Fine-Grained Visual Categorization and
Re-identification", ICCV 2021 (CAL), sections 3.1 to 3.3, on the attention of Hu et al., "See Better
Before Looking Closer", arXiv 1901.09891 (WS-DAN).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.methods.attention import attended_crop, attended_drop, drawn_map, enlarged
from gsfl_tune.models import AttentionSettings

# Random numbers of an image besides those of random attention: of the crop and of the drop which
# map is looked at, and the threshold.
_DRAWS = 4
# Random attention is uniform from 0 to this.
_LARGEST = 2.0


class CounterfactualAttention(Method):
    """Trains on the features that attention maps join, and on what the attention adds to scores.

    The network has M attention maps A, see `gsfl_tune.models.BilinearAttention`, in training and in
    use. With its scores z(A), those of random attention A', each number of it uniform in 0..2, and
    the image, a crop and a drop by the weights w = 1, crop and drop,

        loss = mean by w of ( L(z(A)) + weight * CE(z(A) - z(A'), y) )

    A' is drawn for each of these passes, and both scores have gradients. The crop and the drop are
    those of `AttentionCrop`, by one of the image's own maps each, drawn in proportion to the square
    root of its mean. A pass of weight 0 is not taken. Terms with a state note the first pass.

    At the default weights it is the loss of the authors' program without its term of feature
    centres, which the configuration has terms for. Other than there, prediction is that of one
    pass, not the mean with a crop and with mirrored images, and the network's own pooling and head
    stay.

    Args:
        maps: M.
        weight: Of the cross-entropy of the effect.
        crop: Weight of the crop.
        drop: Weight of the drop.
        width: Channels of what the maps weigh.
    """

    # With both further passes.
    feature_passes = 3
    head_passes = 6
    reads_maps = True
    needs_images = True
    unmixed = True

    def __init__(self, maps: int, weight: float, crop: float, drop: float, width: int) -> None:
        super().__init__()
        self.maps = maps
        self.weight = weight
        self.crop = crop
        self.drop = drop
        self.width = width
        self.feature_passes = 1 + (crop > 0) + (drop > 0)
        self.head_passes = self.feature_passes * (1 + (weight > 0))

    def attends(self, dim: int) -> AttentionSettings:
        """Returns the sizes of the attention."""
        return AttentionSettings(self.maps, dim, self.width)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the mean loss of the passes; in the head stage of a single one."""
        if passes.maps is None or passes.attended is None:
            return single_pass(batch, passes)
        images = batch.inputs
        maps = passes.maps(images)
        features, attention = passes.attended(maps, None)
        chances, random = self._drawn(batch, passes, attention)
        terms = self._terms(batch, passes, maps, features, random[0])
        changed = self._changed(images, attention.detach(), chances)
        seen = 1.0
        for (weight, others), instead in zip(changed, random[1:], strict=True):
            maps = passes.maps(others)
            features, _ = passes.attended(maps, None)
            own = self._terms(batch, passes, maps, features, instead, note=False)
            terms = terms.blended(own, seen / (seen + weight))
            seen += weight
        return terms

    def _drawn(
        self, batch: Batch, passes: Passes, attention: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Draws (B, 4) numbers for crop and drop, and a random attention for every pass."""
        count = self.feature_passes if self.weight > 0 else 0
        size = attention[0].numel()
        # At once: those of a second call would begin like those of the first.
        drawn = passes.draws(batch.positions, _DRAWS + count * size).to(attention)
        chances, *random = drawn.split([_DRAWS, *[size] * count], dim=1)
        if not count:
            return chances, [None] * self.feature_passes
        return chances, [(_LARGEST * each).reshape(attention.shape) for each in random]

    def _terms(
        self,
        batch: Batch,
        passes: Passes,
        maps: Tensor,
        features: Tensor,
        instead: Tensor | None,
        *,
        note: bool = True,
    ) -> LossTerms:
        """Computes the loss of a pass, and that of the effect of its attention."""
        assert passes.attended is not None
        output = passes.head(features)
        terms = passes.loss(output, features, batch.targets, note=note)
        if instead is None:
            return terms
        others, _ = passes.attended(maps, instead)
        effect = output.logits - passes.head(others).logits
        # Of half precision under autocast, which ends with the model.
        effect = effect.float() if effect.element_size() < 4 else effect
        return terms.plus("effect", self.weight, passes.cross_entropy(effect, batch.targets))

    def _changed(
        self, images: Tensor, attention: Tensor, drawn: Tensor
    ) -> Iterator[tuple[float, Tensor]]:
        """Yields weights and images of the further passes."""
        size = (images.shape[2], images.shape[3])
        for weight, change, which, threshold in (
            (self.crop, attended_crop, drawn[:, 0], drawn[:, 1]),
            (self.drop, attended_drop, drawn[:, 2], drawn[:, 3]),
        ):
            if weight > 0:
                found = enlarged(drawn_map(attention, which).to(images.dtype), size)
                yield weight, change(images, found, threshold.to(images.dtype))
