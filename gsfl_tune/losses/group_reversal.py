"""A classifier whose gradient is reversed: the shared part shall not tell classes of a group apart.

Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, with
classes in place of their domains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes
from gsfl_tune.losses._reversed import reversed_gradient


class GroupReversal(LossTerm):
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

    classifier: nn.Sequential
    together: Tensor

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = hidden

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier.

        Raises:
            ValueError: If there are no groups.
        """
        if sizes.groups is None:
            raise ValueError("the classifier of the shared part needs groups of the classes")
        self.classifier = nn.Sequential(
            nn.Linear(sizes.latent_dim, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, sizes.class_count),
        )
        together = sizes.groups[:, None] == sizes.groups[None]
        self.register_buffer("together", together, persistent=False)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        logits = self.classifier(reversed_gradient(batch.shared, batch.progress))
        logits = logits.masked_fill(~self.together[batch.labels], -torch.inf)
        return functional.cross_entropy(logits, batch.labels)
