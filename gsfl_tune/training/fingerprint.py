"""Which training a checkpoint is of."""

from __future__ import annotations

from typing import Any, Literal

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.loss_terms import LOSS_TERMS
from gsfl_tune.experiment.methods import METHOD_SECTIONS
from gsfl_tune.training.caches.features import digest

FitOn = Literal["train", "train+validation"]

# Keys that came later: at their defaults a checkpoint of before stays good.
_LATER = (
    "data.shots",
    "data.class_text",
    "data.point_columns",
    "data.attribute_columns",
    "data.augment.policy",
    "data.augment.erasing",
    "data.augment.rand_operations",
    "data.augment.rand_magnitude",
    "data.augment.degrade",
    "loss.class_weights",
    "loss.logit_adjustment",
    "loss.focal",
    "training.balanced_sampling",
    "training.teacher",
    "training.method",
    "training.head.mixup",
    "training.finetune.mixup",
    "training.finetune.cutmix",
    "training.finetune.fourier",
    "training.finetune.fourier_band",
)

# Says where images lie, not which they are.
_PLACE = ("path", "download")


def fingerprint(
    config: Config, seed: int | None = None, fit: FitOn = "train", *, placed: bool = False
) -> str:
    """What a training computes: two with the same fingerprint, on the same images, are the same.

    Args:
        config: The configuration.
        seed: Overrides ``training.seed``.
        fit: Which images are trained on.
        placed: Whether the place of the images counts, as it did in earlier versions.
    """
    seed = config.training.seed if seed is None else seed
    dumped = config.model_dump(exclude={"search", "name", "storage"})
    if not placed:
        for name in _PLACE:
            del dumped["data"][name]
    # Terms of the loss that take no part, whatever their settings are.
    for name in LOSS_TERMS:
        if not dumped["loss"][name]["weight"]:
            del dumped["loss"][name]
    if not config.loss.distill.weight:
        dumped["training"]["teacher"] = None
    for name in METHOD_SECTIONS:
        if config.training.method != name:
            del dumped["training"][name]
    for path in _LATER:
        *sections, name = path.split(".")
        section = dumped
        for each in sections:
            section = section[each]
        if section[name] == leaves()[path].default:
            del section[name]
    # What packages add and takes no part: the training is what it is without those packages.
    _keep_used(dumped["loss"], "terms")
    _keep_used(dumped["data"]["augment"], "transforms")
    return digest(dumped, seed, fit)


def _keep_used(section: dict[str, Any], name: str) -> None:
    used = {key: value for key, value in section.pop(name).items() if value}
    if used:
        section[name] = used
