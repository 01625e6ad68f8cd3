"""Section ``pretrain`` of an experiment file: features that are learned without labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gsfl_tune.experiment.section import Fraction, NonNegative, Positive, Section, Share


class PretrainAugmentConfig(Section):
    """Random changes of both views of an image."""

    scale: Share = Field(
        0.2, description="Smallest area of a random crop, as a share of the image."
    )
    ratio: float = Field(
        1.33,
        ge=1.0,
        le=4.0,
        description="Largest aspect ratio of a random crop (and 1 / smallest).",
    )
    flip: bool = Field(True, description="Mirror half of the views left to right.")
    color: Fraction = Field(
        0.4, description="Strength of brightness, contrast and saturation jitter."
    )
    grey: Fraction = Field(0.2, description="Share of views without colour.")
    blur: Fraction = Field(0.5, description="Share of views with a Gaussian blur.")
    local_crops: int = Field(
        0,
        ge=0,
        le=16,
        description="Further, smaller views of each image (multi-crop), which learn from the two "
        "whole ones; not with `vicreg`.",
    )
    local_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of such a view in pixels, at most the image size; null: three sevenths "
        "of the image size, to a multiple of 16 (96 of 224).",
    )
    local_scale: Share = Field(
        0.05,
        description="Smallest area of such a view, as a share of the image; the largest is `scale`,"
        " or this value if that is larger.",
    )

    def local_side(self, image_size: int) -> int:
        """Returns the side of a small view in pixels.

        Args:
            image_size: Side of the two large views.
        """
        return self.local_size or max(16, round(image_size * 3 / 7 / 16) * 16)

    @property
    def off(self) -> bool:
        """Returns whether both views of an image are the same."""
        by_chance = 0 < self.grey < 1  # where all views are grey, they still are the same
        moves = self.scale < 1 or self.ratio > 1 or self.flip
        return not (moves or by_chance or self.color or self.blur)


class DiscriminativeConfig(Section):
    """Invariance to dimensions that do not discriminate (Wang et al., arXiv 2407.14676)."""

    pair_weight: NonNegative = Field(
        0.0,
        description="nu, weight of the loss of pairs of decoded images; with `reconstruction_weight"
        ": 0` too, the strategy is off.",
    )
    reconstruction_weight: NonNegative = Field(
        0.0,
        description="alpha, weight of the decoder's reconstruction in what the backbone learns; "
        "the decoder always learns it.",
    )
    fraction: Fraction = Field(
        0.3,
        description="Share of the dimensions that count as low, by variance and by importance "
        "each.",
    )
    combine: Literal["union", "intersection"] = Field(
        "union",
        description="Which dimensions do not discriminate: low by one of both, or by both at once.",
    )
    memory: float = Field(
        0.99,
        ge=0.0,
        lt=1.0,
        description="Decay of the running statistics of the dimensions; 0: of the batch alone.",
    )
    importance: Literal["absolute", "positive"] = Field(
        "absolute",
        description="Grad-CAM of a dimension, gradient times activation: its size, or only what "
        "raises the agreement of both views.",
    )
    perturbation: Literal["noise", "swap", "zero"] = Field(
        "noise",
        description="How such dimensions are changed: Gaussian noise, values of another image of "
        "the batch, or 0.",
    )
    strength: NonNegative = Field(
        1.0, description="Deviation of `noise`, in deviations of the dimension over the data."
    )
    warmup: float = Field(
        0.3,
        ge=0.0,
        lt=1.0,
        description="Share of the epochs before pairs are used; the decoder is trained from the "
        "beginning.",
    )
    pair_loss: Literal["base", "cosine", "squared"] = Field(
        "base",
        description="Loss of a pair: that of `pretrain.method`, 1 - cosine of the representations, "
        "or the squared distance of unit representations.",
    )
    reconstruct: Literal["original", "both"] = Field(
        "original",
        description="What the decoder learns the images from: representations, or perturbed ones "
        "too.",
    )
    decoder_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Side in pixels of decoded images, at most the image size; they are enlarged "
        "for the backbone. null: half of the image size, at most 64.",
    )
    decoder_width: int = Field(
        64, ge=8, le=1024, description="Channels of the decoder's last layer but one."
    )
    decoder_learning_rate: Positive = Field(
        1e-3, description="Peak learning rate of the decoder (AdamW)."
    )

    @property
    def on(self) -> bool:
        """Returns whether anything is decoded."""
        return self.pair_weight > 0 or self.reconstruction_weight > 0


class LcrConfig(Section):
    """Common rationales (Shu et al., CVPR 2023, arXiv 2303.01669): a head learns Grad-CAM maps."""

    weight: NonNegative = Field(
        0.0, description="Weight of the Kullback-Leibler divergence; 0 is off, 0.01 is published."
    )
    channels: int = Field(
        32, ge=1, le=1024, description="Channels of the 1 x 1 convolution of the screening head."
    )
    temperature: Positive = Field(
        0.4, description="Divides maps in 0..1 before they become shares of the positions."
    )
    objective: Literal["loss", "agreement"] = Field(
        "loss", description="What the Grad-CAM map is of: the loss, or its negative."
    )
    backbone_learns: bool = Field(
        True, description="Whether the gradient of the divergence reaches the backbone."
    )


class PretrainConfig(Section):
    """Learning of features from images without labels (extra `ssl`)."""

    method: Literal["simsiam", "moco", "byol", "vicreg", "dino", "lejepa"] = Field(
        "simsiam", description="Self-supervised method: losses and heads of lightly."
    )
    epochs: int = Field(100, ge=1, description="Epochs over the training images.")
    batch_size: int = Field(128, ge=2, description="Images per step; each is shown twice.")
    image_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of the views in pixels, at most the largest image size of the trials; "
        "null: `data.image_size`.",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order and views.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW.")
    learning_rate: Positive = Field(0.03, description="Peak learning rate.")
    weight_decay: NonNegative = Field(1e-4, description="Weight decay (none on biases and norms).")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of SGD.")
    warmup: float = Field(
        0.05, ge=0.0, lt=1.0, description="Share of the steps with a rising rate; a cosine follows."
    )
    hidden_dim: int = Field(512, ge=2, le=16384, description="Width of the projection head.")
    projection_dim: int = Field(128, ge=2, le=16384, description="Size of what is compared.")
    temperature: float | None = Field(
        None,
        gt=0.0,
        description="Temperature of `moco` and of the student of `dino`; by default as published: "
        "0.2, 0.1.",
    )
    teacher_temperature: Positive = Field(0.04, description="Temperature of the teacher of `dino`.")
    teacher_momentum: float = Field(
        0.99,
        ge=0.0,
        lt=1.0,
        description="Decay of the averaged network of `moco`, `byol` and `dino`; of the last two "
        "it rises to 1.",
    )
    queue: int = Field(
        4096,
        ge=2,
        description="Keys that `moco` remembers, at most the number of images; those of the query's"
        " own image are left out.",
    )
    norm_groups: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="`moco`: parts of a batch in which the backbone's batch norms take their "
        "statistics, other ones for keys than for queries; null: 4 (8 from 256 images a step on, "
        "fewer where a part would have fewer than 8 images).",
    )
    prototypes: int = Field(2048, ge=2, le=65536, description="Outputs of the head of `dino`.")
    sketch_weight: Fraction = Field(
        0.05, description="`lejepa`: share of the term that makes projections Gaussian."
    )
    collapse: Fraction = Field(
        0.01,
        description="Deviation of unit representations, and typical distance of unit projections, "
        "0 to 1, below which they count as collapsed and the training ends; 0 is off.",
    )
    evaluate_every: int = Field(
        10,
        ge=1,
        description="`gsfl-tune pretrain`: epochs between evaluations; the last epoch always is.",
    )
    augment: PretrainAugmentConfig = Field(
        default_factory=PretrainAugmentConfig, description="Changes of the views."
    )
    discriminative: DiscriminativeConfig = Field(
        default_factory=DiscriminativeConfig,
        description="Pairs that differ in dimensions which do not discriminate.",
    )
    lcr: LcrConfig = Field(default_factory=LcrConfig, description="Common rationales.")

    @property
    def groups(self) -> int:
        """Returns the number of groups in which batch norms take their statistics."""
        if self.method != "moco":
            return 1
        if self.norm_groups is not None:
            return self.norm_groups
        most = self.batch_size // 8
        return next(n for n in (8, 4, 2, 1) if n == 1 or (n <= most and n <= max(4, most // 4)))
