"""Settings of the loss terms for any head, and the location of their code.

Each term is a file in ``losses/``, and a section and a line here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gsfl_tune.experiment.section import NonNegative, Section


class CenterConfig(Section):
    """Centre loss of Wen et al. (ECCV 2016), with centres of its own."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    rate: float = Field(0.5, gt=0.0, le=1.0, description="Step of the update of its centres.")


class IsdaConfig(Section):
    """Implicit semantic data augmentation of Wang et al. (NeurIPS 2019)."""

    weight: NonNegative = Field(
        0.0, description="Weight of what it adds to the cross-entropy; 0 leaves it out, 1 is ISDA."
    )
    strength: NonNegative = Field(
        0.5, description="lambda at the end of the training; it grows from 0."
    )
    covariance: Literal["diagonal", "full"] = Field(
        "diagonal",
        description="What is kept of each class: variances of the discriminative part, or the "
        "whole matrix (latent_dim^2 numbers a class).",
    )


# Module and class of each section of `loss` that has a weight.
LOSS_TERMS = {
    "center": "gsfl_tune.losses.center:Center",
    "isda": "gsfl_tune.losses.isda:Isda",
}
