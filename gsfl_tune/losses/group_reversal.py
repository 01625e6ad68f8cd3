"""A classifier whose gradient is reversed: the shared part shall not tell classes of a group apart.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, with
classes in place of their domains.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, Sizes
from gsfl_tune.losses._reversed import ReversedClassifier


class GroupReversal(ReversedClassifier):
    """Computes the cross-entropy of a small classifier of the class in its group, on s.

    What classes of a group have in common is what s is for. The classifier (linear, ReLU, linear)
    is trained to tell the classes of a group by s; its softmax is over the classes of the label's
    group. Its gradient reaches s with the sign reversed, times lambda, so that s unlearns what
    tells them. What tells groups from each other stays. As published, lambda grows with the share
    p of the training that is done, 2 / (1 + exp(-10 p)) - 1. A class that is alone in its group
    counts 0.

    Args:
        hidden: Width of the classifier.
    """

    together: Tensor

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier.

        Raises:
            ValueError: If there are no groups.
        """
        super().build(sizes)
        assert sizes.groups is not None
        together = sizes.groups[:, None] == sizes.groups[None]
        self.register_buffer("together", together, persistent=False)

    def outputs(self, groups: Tensor) -> int:
        """Returns the number of classes."""
        return len(groups)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        scores = self.scores(batch.shared, batch.progress)
        scores = scores.masked_fill(~self.together[batch.labels], -torch.inf)
        return functional.cross_entropy(scores, batch.labels)
