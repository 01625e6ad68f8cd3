"""A classifier whose gradient is reversed: the discriminative part shall not tell the group.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, with
groups of classes in place of their domains.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from gsfl_tune.losses._base import LossInput
from gsfl_tune.losses._reversed import ReversedClassifier


class GroupUnlearning(ReversedClassifier):
    """Computes the cross-entropy of a small classifier of the group, on d.

    What tells groups from each other is what s is for. With the group g(y) of the class,

        term = CE(classifier(d), g(y))

    The classifier (linear, ReLU, linear) is trained to tell the group by d. Its gradient reaches d
    with the sign reversed, times lambda, so that d keeps what tells the classes of a group. lambda
    grows over the training as published, see `ReversedClassifier`. A single group counts 0.

    It is the counterpart of `GroupReversal`, which takes from s what tells the classes of a group.
    A d that tells every class tells its group too: the term cannot end at the logarithm of the
    number of groups, and works against the cross-entropy where its weight is large.

    Args:
        hidden: Width of the classifier.
    """

    def outputs(self, groups: Tensor) -> int:
        """Returns the number of groups."""
        return int(groups.max()) + 1

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        scores = self.scores(batch.discriminative, batch.progress)
        return functional.cross_entropy(scores, batch.groups)
