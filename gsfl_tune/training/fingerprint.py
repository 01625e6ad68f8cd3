"""Fingerprints of trainings: they tell which training a checkpoint belongs to."""

from __future__ import annotations

from typing import Any, Literal

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.experiment.loss_terms import LOSS_TERMS
from gsfl_tune.experiment.methods import METHOD_SECTIONS
from gsfl_tune.training.caches.features import digest

FitOn = Literal["train", "train+validation"]

# Newer keys. At their defaults older checkpoints stay valid.
_LATER = (
    "data.eval_image_size",
    "data.shots",
    "data.class_text",
    "data.text_model",
    "data.text_weights",
    "data.split.together",
    "data.unlabelled",
    "data.synthetic",
    "model.classifier_init",
    "model.backbone_b",
    "model.layer_b",
    "model.attention_heads",
    "model.weights_b",
    "data.point_columns",
    "data.attribute_columns",
    "model.gem_power",
    "model.feature_precision",
    "data.augment.policy",
    "data.augment.erasing",
    "data.augment.rand_operations",
    "data.augment.rand_magnitude",
    "data.augment.degrade",
    "data.augment.restorer",
    "loss.class_weights",
    "loss.logit_adjustment",
    "loss.focal",
    "training.balanced_sampling",
    "training.teacher",
    "training.method",
    "training.pretrain",
    "training.pmg.prediction",
    "training.head.mixup",
    "training.finetune.mixup",
    "training.finetune.cutmix",
    "training.head.min_learning_rate",
    "training.finetune.min_learning_rate",
    "training.finetune.layer_decay",
    "training.finetune.drop_path",
    "training.finetune.train",
    "training.finetune.unfreeze",
    "training.finetune.start_size",
    "training.finetune.fourier",
    "training.finetune.fourier_band",
    "training.finetune.adain",
    "training.finetune.mixstyle",
    "training.finetune.snr",
    "pretrain.augment.local_crops",
    "pretrain.augment.local_size",
    "pretrain.augment.local_scale",
)

# The place of the images, not their content.
_PLACE = ("path", "download")


def fingerprint(
    config: Config, seed: int | None = None, fit: FitOn = "train", *, placed: bool = False
) -> str:
    """Returns a digest of a training: equal fingerprints on equal images mean equal trainings.

    Args:
        config: The configuration.
        seed: Overrides ``training.seed``.
        fit: Which images are trained on.
        placed: Whether the place of the images is included, as in earlier versions.
    """
    seed = config.training.seed if seed is None else seed
    dumped = config.model_dump(exclude={"search", "name", "storage"})
    if not placed:
        for name in _PLACE:
            del dumped["data"][name]
    # Without it nothing of the section is used.
    if not config.training.pretrain:
        del dumped["pretrain"]
    elif config.pretrain.method != "moco":  # as of versions without it
        del dumped["pretrain"]["norm_groups"]
    # What may be used changes nothing about what is used.
    del dumped["model"]["licenses"]
    # Settings of unused loss terms do not matter.
    for name in LOSS_TERMS:
        if not dumped["loss"][name]["weight"]:
            del dumped["loss"][name]
    for name, head in HEADS.items():
        if head.section and config.model.head != name:
            del dumped["loss"][head.section]
    if not config.loss.distill.weight:
        dumped["training"]["teacher"] = None
    for name in METHOD_SECTIONS:
        if config.training.method != name:
            del dumped["training"][name]
    if config.training.finetune.train not in ("lora", "dora"):
        for name in ("adapter_rank", "adapter_scale"):
            del dumped["training"]["finetune"][name]
    if not config.training.head.generate.share:
        del dumped["training"]["head"]["generate"]
    for path in _LATER:
        *sections, name = path.split(".")
        section = dumped
        for each in sections:
            section = section.get(each, {})
        if name in section and section[name] == leaves()[path].default:
            del section[name]
    # Unused additions of packages: the training is the same without those packages.
    _keep_used(dumped["loss"], "terms")
    _keep_used(dumped["data"]["augment"], "transforms")
    return digest(dumped, seed, fit)


def _keep_used(section: dict[str, Any], name: str) -> None:
    used = {key: value for key, value in section.pop(name).items() if value}
    if used:
        section[name] = used
