"""What makes two trainings the same training."""

from __future__ import annotations

from typing import Literal

from gsfl_tune.experiment.config import Config
from gsfl_tune.training.features import digest

FitOn = Literal["train", "train+validation"]


def fingerprint(config: Config, seed: int | None = None, fit: FitOn = "train") -> str:
    """What a training computes: two with the same fingerprint are the same training.

    Args:
        config: The configuration.
        seed: Overrides ``training.seed``.
        fit: Which images are trained on.
    """
    seed = config.training.seed if seed is None else seed
    dumped = config.model_dump(exclude={"search", "name", "storage"})
    # Terms of packages that take no part: the training is what it is without those packages.
    terms = {name: weight for name, weight in dumped["loss"].pop("terms").items() if weight}
    if terms:
        dumped["loss"]["terms"] = terms
    return digest(dumped, seed, fit)
