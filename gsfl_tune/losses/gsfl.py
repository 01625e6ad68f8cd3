"""The three terms of the GSFL loss.

Source: Li and Monga, arXiv 2004.01817. Here terms are batch means, where the authors' code takes
sums, and each sample uses its own group centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes, Start, squared
from gsfl_tune.losses.center import Center
from gsfl_tune.losses.centers import ClassCenters


class Reconstruction(LossTerm):
    """Computes |r - f|^2 of the reconstruction r of the unit feature f.

    Args:
        target: ``keep`` lets the gradient flow into the target f too.
    """

    def __init__(self, target: Literal["keep", "detach"] = "keep") -> None:
        super().__init__()
        self.target = target

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        f = batch.features.detach() if self.target == "detach" else batch.features
        return squared(batch.reconstruction, f)


class ClassCenter(Center):
    """Computes |d - c_y|^2 of the discriminative part and its class centre; owns the centres.

    The centres are those of a GSFL head. Other terms read them and the means of their groups.

    Args:
        rate: Rate of the update of the centres, after every optimiser step.
        init: Where centres start: ``zeros``, or the means of their classes.
    """

    any_head = False

    def __init__(self, rate: float, init: Literal["zeros", "class_mean"] = "zeros") -> None:
        super().__init__(rate)
        self.init = init

    def build(self, sizes: Sizes) -> None:
        """Makes the centres, and the groups of the classes.

        Raises:
            ValueError: If there are no groups.
        """
        if sizes.groups is None:
            raise ValueError("the class centres of a GSFL head need groups of the classes")
        self.centers = ClassCenters(sizes.groups, sizes.latent_dim)

    def start(self, start: Start) -> None:
        """Sets the centres to the means of their classes, if so configured."""
        if self.init == "class_mean":
            self.centers.init_class_means(*start.parts())

    def load_earlier(self, state: Mapping[str, Any]) -> None:
        """Restores the centres, which had an entry of their own in such checkpoints."""
        self.centers.load_state_dict(state["centers"])


class SharedCenter(LossTerm):
    """Computes |s - m_g|^2 of the shared part and the mean of its group's class centres."""

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        return squared(batch.shared, batch.group_means[batch.groups])
