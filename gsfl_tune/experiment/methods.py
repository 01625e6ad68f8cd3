"""Settings of the methods of training, and where their code is.

A method is a file in ``methods/``; a line here, and a section if it has settings.
"""

from __future__ import annotations

from pydantic import Field

from gsfl_tune.experiment.section import NonNegative, Positive, Section


class RDropConfig(Section):
    """R-Drop of Liang et al. (NeurIPS 2021): two passes through dropout that shall agree."""

    weight: NonNegative = Field(1.0, description="Weight of the disagreement of both passes.")


class TwoViewsConfig(Section):
    """Two augmented views of every image in a batch, whose predictions shall agree."""

    weight: NonNegative = Field(1.0, description="Weight of the disagreement of both views.")


class SamConfig(Section):
    """Sharpness-aware minimisation of Foret et al. (ICLR 2021)."""

    rho: Positive = Field(0.05, description="How far away the loss is looked at, as a length.")


class FixMatchConfig(Section):
    """FixMatch of Sohn et al. (NeurIPS 2020): pseudo-labels of `data.unlabelled`."""

    weight: NonNegative = Field(1.0, description="Weight of the pseudo-labels.")
    threshold: float = Field(
        0.95, ge=0.0, lt=1.0, description="Probability above which a prediction is a label."
    )
    mu: int = Field(
        2,
        ge=1,
        le=32,
        description="Images without labels for each labelled one of a batch (published: 7).",
    )


# Module and class of each method; its settings are the section of its name in `training`.
METHODS = {
    "single": "gsfl_tune.methods.single:Single",
    "rdrop": "gsfl_tune.methods.rdrop:RDrop",
    "two_views": "gsfl_tune.methods.two_views:TwoViews",
    "sam": "gsfl_tune.methods.sam:Sam",
    "fixmatch": "gsfl_tune.methods.fixmatch:FixMatch",
}
# Those that have settings.
METHOD_SECTIONS = ("rdrop", "two_views", "sam", "fixmatch")
