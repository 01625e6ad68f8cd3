"""Progressive training on jigsaws: earlier blocks learn from smaller pieces of an image.

Source: Du et al., "Fine-Grained Visual Classification via Progressive Multi-Granularity Training of
Jigsaw Patches", ECCV 2020 (PMG), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms, Sizes
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.methods.attention import like
from gsfl_tune.models import GranularitySettings, Layer, map_layers, map_layers_work


class Pmg(Method):
    """Adds the losses of classifiers behind the last trained blocks, each of a jigsaw of its own.

    The map behind the last block is classified for a jigsaw of 2 x 2 pieces, that of the block
    before it for 4 x 4, the one before that for 8 x 8; the pieces of every image are in an order of
    its own. With classifier k behind block k,

        loss = L(image) + weight * sum over k of CE(classifier_k(map_k(jigsaw_k(image))), y)

    A classifier is a 1 x 1 and a 3 x 3 convolution, the maximum over the map, and a linear layer.
    Their number is that of the trained blocks, `levels` at most. A jigsaw whose pieces do not
    divide the image is left out.

    The paper takes an optimiser step for each of these losses, with 1 for jigsaws and 2 for the
    image. Here their sum is one step, in the paper's ratio at weight 0.5. Norms in the classifiers
    are of each image (group norm), so that batches may be trained in pieces and by several
    processes.

    The paper predicts with all classifiers, of which one reads the concatenation of what the others
    look at. So does ``prediction: joint``: the classifiers are part of the network, see
    `gsfl_tune.models.Granularities`, and with that of the concatenation z_c and the head's own
    scores z

        loss = L(image) + CE(z_c(image), y) + weight * sum over k of CE(z_k(jigsaw_k(image)), y)
        answer = z + z_c + sum over k of z_k, all of the image

    With ``prediction: head`` there is no classifier of the concatenation, the classifiers are of
    the training alone, and a bundle is a plain network.

    Args:
        weight: Of the losses of jigsaws.
        levels: Most classifiers.
        width: Channels of their convolutions.
        prediction: ``head`` or ``joint``.
    """

    classifiers: nn.ModuleList

    # With the usual number of levels.
    feature_passes = 4
    reads_maps = True
    needs_images = True

    def __init__(
        self, weight: float, levels: int, width: int, prediction: Literal["head", "joint"] = "head"
    ) -> None:
        super().__init__()
        self.weight = weight
        self.joint = prediction == "joint"
        self.width = width
        self.layers = levels
        self.feature_passes = 1 + levels

    def build(self, sizes: Sizes) -> None:
        """Makes a classifier for every map, unless they are the network's."""
        layers = () if self.joint else sizes.layers
        self.classifiers = nn.ModuleList(
            _classifier(channels, self.width, sizes.class_count) for channels in layers
        )

    def granularities(
        self, layers: Sequence[Layer], class_count: int
    ) -> GranularitySettings | None:
        """Returns the sizes of the network's classifiers, with ``prediction: joint``."""
        if not self.joint:
            return None
        channels = tuple(layer.channels for layer in layers)
        stops = tuple(layer.stop for layer in layers[1:])
        return GranularitySettings(channels, stops, self.width, class_count)

    def passes_through(self, layers: int) -> int:
        """Counts one pass for the image and one for every jigsaw."""
        return 1 + layers

    def operations(
        self, maps: Sequence[tuple[int, int]], images: int, extras: Mapping[str, int]
    ) -> float:
        """Counts those of the convolutions of the classifiers."""
        return sum(map_layers_work(channels, places, self.width) for channels, places in maps)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of the images and of their jigsaws; in the head stage of features."""
        if passes.layer is None:
            return single_pass(batch, passes)
        scores: list[Callable[[Tensor], Tensor]]
        if not self.joint:
            terms = single_pass(batch, passes)
            scores = list(self.classifiers)
        elif passes.granular is None or passes.granularities is None:
            return single_pass(batch, passes)
        else:
            whole = passes.granular(batch.inputs)
            terms = passes.loss(passes.head(whole.features), whole.features, batch.targets)
            together = passes.cross_entropy(whole.together, batch.targets)
            terms = terms.plus("together", 1.0, together)
            score = passes.granularities.score
            scores = [partial(score, level) for level in range(len(whole.scores))]
        return terms.plus("jigsaw", self.weight, self._of_jigsaws(batch, passes, scores))

    def _of_jigsaws(
        self, batch: Batch, passes: Passes, scores: Sequence[Callable[[Tensor], Tensor]]
    ) -> Tensor:
        """Sums the cross-entropies of classifiers, each of a jigsaw of its own."""
        assert passes.layer is not None
        images = batch.inputs
        counts = [2 ** (level + 1) for level in range(len(scores))]
        drawn = passes.draws(batch.positions, sum(count**2 for count in counts)).to(images.device)
        orders = drawn.split([count**2 for count in counts], dim=1)
        total = images.new_zeros(())
        for level, (count, order) in enumerate(zip(counts, orders, strict=True)):
            if images.shape[2] % count or images.shape[3] % count:
                continue
            maps = passes.layer(shuffled(images, order.argsort(1), count), level)
            # Of half precision under autocast, which ends with the model.
            found = scores[level](maps.float() if maps.element_size() < 4 else maps)
            total = total + passes.cross_entropy(found, batch.targets)
        return total


def shuffled(images: Tensor, order: Tensor, count: int) -> Tensor:
    """Cuts images into count x count pieces and puts them together in another order.

    Args:
        images: (B, 3, height, width); count divides both sides.
        order: (B, count^2) int64: which piece comes to each place, row by row.
        count: Pieces of a side.
    """
    size, channels, height, width = images.shape
    pieces = images.reshape(size, channels, count, height // count, count, width // count)
    pieces = pieces.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = pieces[torch.arange(size, device=images.device)[:, None], order]
    moved = moved.unflatten(1, (count, count)).permute(0, 3, 1, 4, 2, 5)
    return like(images, moved.reshape(images.shape))


def _classifier(channels: int, width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(*map_layers(channels, width), nn.Linear(width, classes))
