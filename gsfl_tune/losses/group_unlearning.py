"""A classifier whose gradient is reversed: the discriminative part shall not tell the group.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, with
groups of classes in place of their domains.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes
from gsfl_tune.losses._reversed import reversed_gradient


class GroupUnlearning(LossTerm):
    """Computes the cross-entropy of a small classifier of the group, on d.

    What tells groups from each other is what s is for. With the group g(y) of the class,

        term = CE(classifier(d), g(y))

    The classifier (linear, ReLU, linear) is trained to tell the group by d. Its gradient reaches d
    with the sign reversed, times lambda, so that d keeps what tells the classes of a group. lambda
    grows over the training as published, see `reversed_gradient`. A single group counts 0.

    It is the counterpart of `GroupReversal`, which takes from s what tells the classes of a group.
    A d that tells every class tells its group too: the term cannot end at the logarithm of the
    number of groups, and works against the cross-entropy where its weight is large.

    Args:
        hidden: Width of the classifier.
    """

    classifier: nn.Sequential

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = hidden

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier.

        Raises:
            ValueError: If there are no groups.
        """
        if sizes.groups is None:
            raise ValueError("the classifier of the group needs groups of the classes")
        self.classifier = nn.Sequential(
            nn.Linear(sizes.latent_dim, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, int(sizes.groups.max()) + 1),
        )

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        logits = self.classifier(reversed_gradient(batch.discriminative, batch.progress))
        return functional.cross_entropy(logits, batch.groups)
