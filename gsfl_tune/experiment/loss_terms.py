"""Settings of the further loss terms, and the location of their code.

Each term is a file in ``losses/``, and a section and a line here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gsfl_tune.experiment.section import NonNegative, Positive, Section


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


class PairwiseConfusionConfig(Section):
    """Pairwise confusion of Dubey et al. (ECCV 2018): probabilities of pairs of classes."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")


class IndependenceConfig(Section):
    """Dependence of the shared and the discriminative part (HSIC of Gretton et al., ALT 2005)."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    measure: Literal["hsic_linear", "hsic_gaussian", "cosine"] = Field(
        "hsic_gaussian",
        description="HSIC with linear kernels (the squared covariance), with Gaussian ones (any "
        "dependence, whatever the scale), or the squared cosine of both parts of an image.",
    )


class SharedVarianceConfig(Section):
    """Floor of the variance of the shared part, as in VICReg (Bardes et al., ICLR 2022)."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    floor: Positive = Field(
        1.0, description="Standard deviation of each dimension below which the term begins."
    )


class GroupReversalConfig(Section):
    """Reversed gradient of a classifier of the class within its group, on the shared part."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    hidden: int = Field(128, ge=1, le=8192, description="Width of the classifier.")


class GroupUnlearningConfig(Section):
    """Reversed gradient of a classifier of the group, on the discriminative part."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    hidden: int = Field(128, ge=1, le=8192, description="Width of the classifier.")


class FsdgConfig(Section):
    """Weights of the terms of an fsdg head, after Yu et al. (arXiv 2406.09166)."""

    decorrelation: NonNegative = Field(
        0.1, description="Correlation of the common, specific and confounding parts."
    )
    consistency: NonNegative = Field(
        0.1, description="Distance of the common parts of images of one group."
    )
    specificity: NonNegative = Field(
        0.1, description="Likeness of the specific parts of classes of one group."
    )
    calibration: NonNegative = Field(
        0.1, description="Prediction of the group, and its distance from that of the class."
    )


class MetricLearningConfig(Section):
    """Losses of pytorch-metric-learning with learned proxies of the classes."""

    weight: NonNegative = Field(0.0, description="Weight of the term; 0 leaves it out.")
    kind: Literal["arcface", "subcenter_arcface", "proxy_anchor", "soft_triple"] = Field(
        "arcface", description="Which loss."
    )
    scale: float | None = Field(
        None,
        gt=0.0,
        description="Scale of the cosines; by default as published: 64, 64, 32, 20.",
    )
    margin: float | None = Field(
        None,
        ge=0.0,
        le=90.0,
        description="Margin, of the first two kinds in degrees; by default as published: 28.6, "
        "28.6, 0.1, 0.01.",
    )
    centers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Proxies of a class; by default 3 for `subcenter_arcface`, 10 for "
        "`soft_triple`.",
    )


class DistillConfig(Section):
    """Distillation of a teacher (Hinton et al., 2015): its predictions for the images as seen."""

    weight: NonNegative = Field(
        0.0, description="Weight of the term; 0 leaves it out. It needs `training.teacher`."
    )
    temperature: float = Field(
        4.0, gt=0.0, le=100.0, description="Divides the scores of both; larger: softer."
    )
    standardize: bool = Field(
        False,
        description="Scores of both with mean 0 and deviation 1 first (Sun et al., CVPR 2024).",
    )


class AttributesConfig(Section):
    """Binary attributes of the images, predicted beside the class."""

    weight: NonNegative = Field(
        0.0, description="Weight of the term; 0 leaves it out. It needs images with attributes."
    )


class CausalityConfig(Section):
    """Dual causality loss of style normalisation and restitution (Jin et al., IEEE TMM 2022)."""

    weight: NonNegative = Field(
        0.0, description="Weight of the term; 0 leaves it out. It needs `training.finetune.snr`."
    )


# Module and class of each section of `loss` that has a weight.
LOSS_TERMS = {
    "center": "gsfl_tune.losses.center:Center",
    "isda": "gsfl_tune.losses.isda:Isda",
    "pairwise_confusion": "gsfl_tune.losses.pairwise_confusion:PairwiseConfusion",
    "independence": "gsfl_tune.losses.independence:Independence",
    "shared_variance": "gsfl_tune.losses.shared_variance:SharedVariance",
    "group_reversal": "gsfl_tune.losses.group_reversal:GroupReversal",
    "group_unlearning": "gsfl_tune.losses.group_unlearning:GroupUnlearning",
    "distill": "gsfl_tune.losses.distill:Distill",
    "attributes": "gsfl_tune.losses.attributes:Attributes",
    "causality": "gsfl_tune.losses.causality:Causality",
    "metric_learning": "gsfl_tune.losses.metric_learning:MetricLearning",
}
# Those that read the shared part, which a `gsfl` head alone has, or leave the group to it.
SHARED_TERMS = ("independence", "shared_variance", "group_reversal", "group_unlearning")
