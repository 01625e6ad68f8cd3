"""The three terms of the GSFL loss.

Source: Li and Monga, arXiv 2004.01817. Here terms are batch means, where the authors' code takes
sums, and each sample uses its own group centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes, Start, Weighted, squared
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

    def offers(self, labels: Tensor) -> Mapping[str, Tensor]:
        """Returns groups of the labels, the centres, and the means of the groups' centres."""
        centers = self.centers
        return {
            "groups": centers.groups[labels],
            "class_centers": centers.centers,
            "group_means": centers.group_means(),
        }

    def load_earlier(self, state: Mapping[str, Any]) -> None:
        """Restores the centres, which had an entry of their own in such checkpoints."""
        self.centers.load_state_dict(state["centers"])


class SharedCenter(LossTerm):
    """Computes |s - m_g|^2 of the shared part and the mean of its group's class centres."""

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        return squared(batch.shared, batch.group_means[batch.groups])


def gsfl_terms(
    *,
    reconstruction: float,
    class_center: float,
    shared_center: float,
    center_rate: float,
    center_init: Literal["zeros", "class_mean"] = "zeros",
    target: Literal["keep", "detach"] = "keep",
) -> dict[str, Weighted]:
    """Creates the terms of a GSFL head.

    Args:
        reconstruction: w_r.
        class_center: w_c.
        shared_center: w_s.
        center_rate: Rate of the update of the class centres.
        center_init: Initial centres, see `ClassCenter`.
        target: Gradient of the target, see `Reconstruction`.
    """
    return {
        "reconstruction": Weighted(reconstruction, Reconstruction(target)),
        "class_center": Weighted(class_center, ClassCenter(center_rate, center_init)),
        "shared_center": Weighted(shared_center, SharedCenter()),
    }


def head_terms(loss: Mapping[str, Any], feature_scale: float) -> dict[str, Weighted]:
    """Creates the terms of a GSFL head from the section ``loss``.

    Args:
        loss: The section.
        feature_scale: Scale of the features that the encoders see; no term needs it.
    """
    return gsfl_terms(
        reconstruction=loss["reconstruction"],
        class_center=loss["class_center"],
        shared_center=loss["shared_center"],
        center_rate=loss["center_rate"],
        center_init=loss["center_init"],
        target=loss["reconstruction_target"],
    )
