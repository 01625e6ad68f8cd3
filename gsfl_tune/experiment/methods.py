"""Settings of the methods of training, and where their code is.

A method is a file in ``methods/``; a line here, and a section if it has settings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gsfl_tune.experiment.section import Fraction, NonNegative, Positive, Section, Share


class RDropConfig(Section):
    """R-Drop of Liang et al. (NeurIPS 2021): two passes through dropout that shall agree."""

    weight: NonNegative = Field(1.0, description="Weight of the disagreement of both passes.")


class TwoViewsConfig(Section):
    """Two augmented views of every image in a batch, whose predictions shall agree."""

    weight: NonNegative = Field(1.0, description="Weight of the disagreement of both views.")


class SamConfig(Section):
    """Sharpness-aware minimisation of Foret et al. (ICLR 2021)."""

    rho: Positive = Field(0.05, description="How far away the loss is looked at, as a length.")


class AttentionCropConfig(Section):
    """Further passes of what the network attends to, and of the rest (WS-DAN)."""

    crop: NonNegative = Field(
        1.0, description="Weight of the loss of the region, beside 1 of the image; 0 leaves it out."
    )
    drop: NonNegative = Field(
        1.0, description="Weight of the loss of the image without the region; 0 leaves it out."
    )
    map: Literal["activation", "class"] = Field(
        "activation",
        description="What attention is: mean activation, or what adds to the score of the class.",
    )


class SnapMixConfig(Section):
    """SnapMix of Huang et al. (AAAI 2021): boxes whose labels count by what is seen in them."""

    alpha: Positive = Field(
        5.0, description="The areas of boxes are of Beta(alpha, alpha): large for half of the area."
    )
    probability: Fraction = Field(1.0, description="Share of the images that are mixed.")


class PmgConfig(Section):
    """Jigsaws for classifiers behind the last trained blocks, of Du et al. (ECCV 2020)."""

    weight: NonNegative = Field(
        0.5, description="Weight of the losses of jigsaws, beside 1 of the image."
    )
    levels: int = Field(
        3,
        ge=1,
        le=4,
        description="Most classifiers, for jigsaws of 2, 4, 8 and 16 pieces a side; as many as "
        "there are trained blocks.",
    )
    width: int = Field(128, ge=8, le=4096, description="Channels of these classifiers.")
    prediction: Literal["head", "joint"] = Field(
        "head",
        description="Who predicts: the model's head alone, or, as published, its sum with all of "
        "these classifiers and one of their concatenation, which are then in the bundle.",
    )


class RecurrentAttentionConfig(Section):
    """Recurrent attention of Fu et al. (CVPR 2017, RA-CNN), experimental: regions seen enlarged."""

    scales: int = Field(
        3, ge=2, le=4, description="How often an image is seen, the whole image included."
    )
    weight: NonNegative = Field(
        1.0, description="Weight of the rank loss: a finer scale shall be surer of the class."
    )
    margin: Fraction = Field(
        0.05, description="By how much its probability of the class shall be higher."
    )
    steepness: Positive = Field(
        10.0, description="How sharp the edges of a region are, k of the mask, per pixel."
    )
    width: int = Field(
        64, ge=1, le=4096, description="Channels between the two layers of a proposal."
    )
    start: Literal["response", "middle"] = Field(
        "response",
        description="Where regions start: where the map answers most, or in the middle.",
    )


class CounterfactualAttentionConfig(Section):
    """Attention maps of Rao et al. (ICCV 2021, CAL) that shall help more than random ones."""

    maps: int = Field(32, ge=1, le=256, description="Number of attention maps.")
    weight: NonNegative = Field(
        1.0,
        description="Weight of the cross-entropy of the effect: scores with the attention less "
        "those with random attention; 0 leaves it out.",
    )
    crop: NonNegative = Field(
        1.0,
        description="Weight of the loss of the region that a map attends to, beside 1 of the "
        "image; 0 leaves it out.",
    )
    drop: NonNegative = Field(
        1.0, description="Weight of the loss of the image without the region; 0 leaves it out."
    )
    width: int = Field(64, ge=8, le=4096, description="Channels of what the maps weigh.")


class FeatureAlignmentConfig(Section):
    """Features that shall be the same in the surroundings of other images (CFA, Peng et al.)."""

    weight: NonNegative = Field(
        1.0, description="Weight of the distance between the features of an image and of its copy."
    )
    map: Literal["activation", "class"] = Field(
        "activation",
        description="What the copy keeps is found by mean activation, or by what adds to the score "
        "of the class.",
    )


class AttributeAttentionConfig(Section):
    """Attributes that attend to places of the map, and their contrast (HDAFL, Lei et al., 2024)."""

    weight: NonNegative = Field(1.0, description="Weight of the cross-entropy of attributes.")
    contrast: NonNegative = Field(
        0.1,
        description="Weight of the contrast: embeddings of one attribute of the same value attract "
        "each other, others repel; 0 leaves it out.",
    )
    temperature: float = Field(
        0.1, ge=0.01, le=10.0, description="Divides the cosines of the contrast; smaller: harder."
    )
    width: int = Field(128, ge=8, le=4096, description="Size of the embedding of an attribute.")
    absent: bool = Field(
        True,
        description="Whether images that both lack an attribute attract each other too, or those "
        "alone that both have it.",
    )


class PartRcnnConfig(Section):
    """Parts of Zhang et al. (ECCV 2014): found by a detector, joined to the global feature."""

    weight: Positive = Field(1.0, description="Weight of the loss of the detector.")
    size: Share = Field(
        0.25,
        description="Side of the box around a point, as a share of the geometric mean of the sides "
        "of the object's box, or of the side of an image without one.",
    )
    width: int = Field(
        128, ge=8, le=4096, description="Channels of the detector and of the features of a part."
    )
    whole: bool = Field(True, description="Whether the box of the object is a part too.")


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
    "attention_crop": "gsfl_tune.methods.attention_crop:AttentionCrop",
    "snapmix": "gsfl_tune.methods.snapmix:SnapMix",
    "pmg": "gsfl_tune.methods.pmg:Pmg",
    "recurrent_attention": "gsfl_tune.methods.recurrent_attention:RecurrentAttentionMethod",
    "counterfactual_attention": (
        "gsfl_tune.methods.counterfactual_attention:CounterfactualAttention"
    ),
    "feature_alignment": "gsfl_tune.methods.feature_alignment:FeatureAlignment",
    "attribute_attention": "gsfl_tune.methods.attribute_attention:AttributeAttention",
    "part_rcnn": "gsfl_tune.methods.part_rcnn:PartRcnn",
    "fixmatch": "gsfl_tune.methods.fixmatch:FixMatch",
}
# Those that take a single pass of the head stage, where they have no effect.
FINETUNE_METHODS = (
    *("attention_crop", "snapmix", "pmg", "recurrent_attention"),
    *("counterfactual_attention", "feature_alignment", "attribute_attention", "part_rcnn"),
)
# Those that need images with attributes.
ATTRIBUTE_METHODS = ("attribute_attention",)
# Those that need images with boxes or points of parts.
PART_METHODS = ("part_rcnn",)
# Those that need `data.unlabelled`.
UNLABELLED_METHODS = ("fixmatch",)
# Those that have settings.
METHOD_SECTIONS = (
    *("rdrop", "two_views", "sam", "attention_crop", "snapmix", "pmg", "recurrent_attention"),
    *("counterfactual_attention", "feature_alignment", "attribute_attention", "part_rcnn"),
    "fixmatch",
)
