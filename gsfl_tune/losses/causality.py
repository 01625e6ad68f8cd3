"""The dual causality loss of style normalisation and restitution.

Source: Jin et al., "Style Normalization and Restitution for Domain Generalization and Adaptation",
IEEE TMM 2022 (arXiv 2101.03064): what is given back should make predictions surer, and what is not
less sure, than the normalised map alone.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes

RESTITUTED = "restituted"
"""Name of the extra with three means over positions (B, C') of a map: with normalised style, with
what was given back, and with what was not. It is absent in the head stage."""


class Causality(LossTerm):
    """Compares the entropies H of predictions from the three parts of `RESTITUTED`.

    A linear classifier of its own reads the means f, f+ and f- of F~, F~+ and F~-. The term is
    ``softplus(H(f+) - H(f)) + softplus(H(f) - H(f-))``, plus the cross-entropy of f+, from which
    the classifier learns the classes. Without these parts (in the head stage) it is 0.
    """

    any_head = True

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier."""
        channels = sizes.extras.get(RESTITUTED, 0)
        self.classifier = nn.Linear(channels, sizes.class_count) if channels else None

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        parts: tuple[Tensor, Tensor, Tensor] | None = batch.extras.get(RESTITUTED)
        if parts is None or self.classifier is None:
            return batch.logits.new_zeros(())
        plain, given, other = (self.classifier(part) for part in parts)
        sure, unsure = _entropy(given) - _entropy(plain), _entropy(plain) - _entropy(other)
        compared = F.softplus(sure) + F.softplus(unsure)
        return compared.mean() + batch.cross_entropy(given)


def _entropy(logits: Tensor) -> Tensor:
    """Returns the entropy (B,) of softmax probabilities."""
    logs = logits.log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1)
