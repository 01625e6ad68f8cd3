"""Attributes of images, predicted from the discriminative part by a linear layer.

Source: Lampert et al., "Attribute-Based Classification for Zero-Shot Visual Object Categorization",
TPAMI 2014, whose attribute classifiers here share the representation of the classes, as further
tasks (Caruana, "Multitask Learning", Machine Learning 1997).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes

ATTRIBUTES = "attributes"
"""Name of the extra with attributes (B, A), 0 to 1, NaN for unknown ones."""

_OF_CUB = 312


def attribute_count(columns: Sequence[str] | None) -> int:
    """Returns the number of attributes of images, for prices.

    Args:
        columns: Their columns in a table; None: those of CUB.
    """
    return _OF_CUB if columns is None else len(columns)


class Attributes(LossTerm):
    """Averages the binary cross-entropy of known attributes over them, then over the images.

    Unknown attributes are left out; an image without a known one counts 0. Attributes between 0
    and 1 are probabilities.
    """

    any_head = True
    layer: nn.Linear

    def build(self, sizes: Sizes) -> None:
        """Makes the linear layer.

        Raises:
            ValueError: If there are no attributes.
        """
        count = sizes.extras.get(ATTRIBUTES, 0)
        if not count:
            raise ValueError("the term of attributes needs images with attributes")
        self.layer = nn.Linear(sizes.latent_dim, count)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        scores: Tensor = self.layer(batch.discriminative)
        attributes: Tensor | None = batch.extras.get(ATTRIBUTES)
        if attributes is None:  # inputs that are not images, to test the memory
            return 0 * scores.sum()
        return attribute_error(scores, attributes)


def attribute_error(scores: Tensor, attributes: Tensor) -> Tensor:
    """Computes the binary cross-entropy, a mean over known attributes, then over images.

    Args:
        scores: (B, A), before the sigmoid.
        attributes: (B, A), 0 to 1, NaN for unknown ones.

    Returns:
        A scalar; an image without a known attribute counts 0 in it.
    """
    known = attributes.isfinite()
    wanted = attributes.nan_to_num().to(scores.dtype)
    each = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    return ((each * known).sum(1) / known.sum(1).clamp(min=1)).mean()
