"""The concrete configuration of one trial, after every distribution has a value.

Every key of an experiment file is a field here. ``gsfl-tune schema`` shows its ``description`` in
editors. Distributions are not part of these models: `gsfl_tune.experiment.space` replaces them by
values first.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gsfl_tune.experiment.added_config import LossTermsConfig
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.experiment.loss_terms import (
    AttributesConfig,
    CausalityConfig,
    CenterConfig,
    DistillConfig,
    FsdgConfig,
    GroupReversalConfig,
    GroupUnlearningConfig,
    IndependenceConfig,
    IsdaConfig,
    MetricLearningConfig,
    PairwiseConfusionConfig,
    SharedVarianceConfig,
)
from gsfl_tune.experiment.methods import (
    AttentionCropConfig,
    AttributeAttentionConfig,
    CounterfactualAttentionConfig,
    FeatureAlignmentConfig,
    FixMatchConfig,
    PartRcnnConfig,
    PmgConfig,
    RDropConfig,
    RecurrentAttentionConfig,
    SamConfig,
    SnapMixConfig,
    TwoViewsConfig,
)
from gsfl_tune.experiment.model_config import ModelConfig
from gsfl_tune.experiment.names import Automatic, Named
from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.experiment.section import Fraction, NonNegative, Positive, Section, Share


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
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="In the cross-entropy.")
    class_weights: Fraction = Field(
        0.0,
        description="Weights of classes in the cross-entropy, n^-x for a class of n training "
        "images: 0 none, 0.5 inverse square root, 1 inverse frequency (`balanced`).",
    )
    logit_adjustment: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="tau: in training, tau times the logarithm of its class' share of the training "
        "images is added to every score of the cross-entropy; 0 is off, 1 is usual.",
    )
    focal: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="gamma of the focal loss: weight (1 - p)^gamma in the cross-entropy; 0 is off.",
    )
    center: CenterConfig = Field(
        default_factory=CenterConfig, description="Centre loss, for any head."
    )
    isda: IsdaConfig = Field(
        default_factory=IsdaConfig,
        description="Implicit semantic data augmentation, for any head.",
    )
    pairwise_confusion: PairwiseConfusionConfig = Field(
        default_factory=PairwiseConfusionConfig, description="Pairwise confusion, for any head."
    )
    independence: IndependenceConfig = Field(
        default_factory=IndependenceConfig,
        description="Dependence of the shared and the discriminative part, with a gsfl head.",
    )
    shared_variance: SharedVarianceConfig = Field(
        default_factory=SharedVarianceConfig,
        description="Floor of the variance of the shared part, with a gsfl head.",
    )
    group_reversal: GroupReversalConfig = Field(
        default_factory=GroupReversalConfig,
        description="Reversed gradient of a classifier of the shared part, with a gsfl head.",
    )
    group_unlearning: GroupUnlearningConfig = Field(
        default_factory=GroupUnlearningConfig,
        description="Reversed gradient of a classifier of the group, with a gsfl head.",
    )
    metric_learning: MetricLearningConfig = Field(
        default_factory=MetricLearningConfig,
        description="Losses of metric learning, for any head (extra `metric-learning`).",
    )
    distill: DistillConfig = Field(
        default_factory=DistillConfig, description="Distillation of `training.teacher`."
    )
    attributes: AttributesConfig = Field(
        default_factory=AttributesConfig,
        description="Attributes of the images (sources `cub`, `csv`, `jsonl`), for any head.",
    )
    fsdg: FsdgConfig = Field(default_factory=FsdgConfig, description="Terms of an fsdg head.")
    causality: CausalityConfig = Field(
        default_factory=CausalityConfig,
        description="What `training.finetune.snr` gives back, for any head.",
    )
    terms: LossTermsConfig = Field(
        default_factory=LossTermsConfig,
        description="Weights of loss terms that installed packages add (docs/extending.md).",
    )


class OptimizerConfig(Section):
    """Settings that both stages have."""

    optimizer: Literal["adamw", "sgd", "muon", "schedule_free"] = Field(
        "adamw",
        description="AdamW; SGD with momentum; Muon for matrices of the backbone and AdamW for "
        "everything else; or schedule-free AdamW, whose rate is constant after the warm-up (extra "
        "`schedule-free`).",
    )
    weight_decay: NonNegative = Field(1e-4, description="Weight decay (none on biases and norms).")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of SGD.")
    warmup: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the stage with a rising rate.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Rate after the warm-up.")
    min_learning_rate: Fraction = Field(
        0.0, description="Share of the peak rate at which the cosine ends."
    )
    clip_norm: NonNegative = Field(0.0, description="Largest gradient norm; 0 turns clipping off.")
    mixup: NonNegative = Field(
        0.0,
        description="alpha of mixup on the stage's inputs (images, activations or features); 0 "
        "is off.",
    )


class HeadStageConfig(OptimizerConfig):
    """Stage with a frozen backbone, on cached features."""

    epochs: Annotated[int, Automatic(10)] = Field(
        30,
        ge=0,
        description="Epochs; 0 leaves the stage out. `auto`, the default where search.time_budget "
        "is given, is 10; without a finetune stage 30, or fewer where the budget is short.",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum.")
    batch_size: int = Field(64, ge=2, description="Images per optimiser step.")
    learning_rate: Positive = Field(1e-3, description="Peak learning rate.")
    generate: GenerateConfig = Field(
        default_factory=GenerateConfig, description="Generated features for rare classes."
    )


class FinetuneStageConfig(OptimizerConfig):
    """Stage that trains the backbone, or its last blocks, with the head."""

    epochs: Annotated[int, Automatic(8)] = Field(
        0,
        ge=0,
        description="Epochs; 0 leaves the stage out, `auto` is what search.time_budget allows, 8 "
        "without one (the default where a budget is given).",
    )
    batch_size: int = Field(32, ge=2, description="Images per micro-batch.")
    accumulate: int = Field(1, ge=1, description="Micro-batches per optimiser step.")
    learning_rate: Positive = Field(1e-4, description="Peak learning rate of the backbone.")
    head_learning_rate: Positive = Field(1e-3, description="Peak learning rate of the head.")
    blocks: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="Train the last n blocks of the backbone, or `all`."
    )
    train: Literal["all", "norms", "biases", "lora", "dora"] = Field(
        "all",
        description="What is trained of these blocks: everything, norms, biases (BitFit), or "
        "adapters of low rank (LoRA, DoRA; extra `adapters`).",
    )
    adapter_rank: int = Field(16, ge=1, le=256, description="Rank of `train: lora` and `dora`.")
    adapter_scale: Positive = Field(
        1.0, description="Factor of what adapters add: the papers' alpha / rank."
    )
    unfreeze: int = Field(
        0,
        ge=0,
        le=1000,
        description="Gradual unfreezing: the head and the last of these blocks are trained first, "
        "one further block every so many epochs; 0 trains all of them from the beginning.",
    )
    layer_decay: Share = Field(
        1.0,
        description="A block k steps below the last one has learning_rate * layer_decay^k; 1 is "
        "off.",
    )
    drop_path: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Stochastic depth: timm's drop_path_rate of the trained blocks.",
    )
    start_size: float = Field(
        1.0,
        ge=0.25,
        le=1.0,
        description="Progressive resizing: side of the training images in the first epoch as a "
        "share of `data.image_size`, to which it grows; 1 is off.",
    )
    cutmix: NonNegative = Field(
        0.0,
        description="alpha of CutMix on images or cached activations; with mixup too, each gets "
        "about every other batch; 0 is off.",
    )
    fourier: Fraction = Field(
        0.0,
        description="Share of images whose low amplitudes come from another image of the batch "
        "(FDA): its colours and light.",
    )
    fourier_band: float = Field(
        0.01,
        gt=0.0,
        le=0.5,
        description="Half width of the band of `fourier`, as a share of the image's side.",
    )
    adain: Fraction = Field(
        0.0,
        description="Share of images that take the mean and deviation of each colour channel of "
        "another image of the batch (AdaIN).",
    )
    mixstyle: Fraction = Field(
        0.0,
        description="Share of batches in which channel means and deviations of the maps in front "
        "of the trained blocks are mixed between images (MixStyle).",
    )
    snr: bool = Field(
        False,
        description="Style normalisation and restitution of the map that enters the trained "
        "blocks: a module with weights, also in use.",
    )
    compile: bool = Field(
        False, description="torch.compile the network: minutes at the start, faster steps after."
    )


class TrainingConfig(Section):
    """Training of one trial: two stages and their common settings."""

    pretrain: bool = Field(
        False,
        description="Learn the backbone's weights without labels first, as the section `pretrain` "
        "says; trials with the same pretraining share its result.",
    )
    head: HeadStageConfig = Field(default_factory=HeadStageConfig, description="Stage one.")
    finetune: FinetuneStageConfig = Field(
        default_factory=FinetuneStageConfig, description="Stage two."
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order, dropout and augmentation.")
    method: Annotated[str, Named("method")] = Field(
        "single", description="Which passes a training step takes."
    )
    rdrop: RDropConfig = Field(default_factory=RDropConfig, description="For `method: rdrop`.")
    two_views: TwoViewsConfig = Field(
        default_factory=TwoViewsConfig, description="For `method: two_views`."
    )
    sam: SamConfig = Field(default_factory=SamConfig, description="For `method: sam`.")
    attention_crop: AttentionCropConfig = Field(
        default_factory=AttentionCropConfig, description="For `method: attention_crop`."
    )
    snapmix: SnapMixConfig = Field(
        default_factory=SnapMixConfig, description="For `method: snapmix`."
    )
    pmg: PmgConfig = Field(default_factory=PmgConfig, description="For `method: pmg`.")
    recurrent_attention: RecurrentAttentionConfig = Field(
        default_factory=RecurrentAttentionConfig, description="For `method: recurrent_attention`."
    )
    counterfactual_attention: CounterfactualAttentionConfig = Field(
        default_factory=CounterfactualAttentionConfig,
        description="For `method: counterfactual_attention`.",
    )
    feature_alignment: FeatureAlignmentConfig = Field(
        default_factory=FeatureAlignmentConfig, description="For `method: feature_alignment`."
    )
    attribute_attention: AttributeAttentionConfig = Field(
        default_factory=AttributeAttentionConfig, description="For `method: attribute_attention`."
    )
    part_rcnn: PartRcnnConfig = Field(
        default_factory=PartRcnnConfig, description="For `method: part_rcnn`."
    )
    fixmatch: FixMatchConfig = Field(
        default_factory=FixMatchConfig, description="For `method: fixmatch`."
    )
    teacher: str | None = Field(
        None,
        description="Directory of a bundle that `loss.distill` learns from; it must not have seen "
        "the validation images (`export --without-validation`).",
    )
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
        description="Precision of the finetune stage. `auto`: bf16 autocast where a GPU has it, "
        "and on a CPU with bf16 matrix units where steps of the backbone are faster.",
    )
    cache_precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="Precision of cached features and activations; fp16 halves them."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="`auto`: a GPU if there is one; `mps`: that of an Apple computer."
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
        description="Second location of the run, beside its directory: a path, s3://, gs:// or any "
        "URL that pyarrow or fsspec opens; credentials come from the environment.",
    )
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)

    @property
    def eval_image_size(self) -> int:
        """Returns the side in pixels of what the trained network sees outside of training."""
        own = self.data.eval_image_size
        return own if own is not None and self.training.finetune.epochs else self.data.image_size
