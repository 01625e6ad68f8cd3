"""Creates the loss of a training from its configuration."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch

from gsfl_tune.data.sampling import class_weights, log_priors
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.experiment.loss_terms import LOSS_TERMS
from gsfl_tune.losses import Loss, LossTerm, Sizes, Weighted, added_term
from gsfl_tune.training.head_terms import head_terms


def create_loss(
    config: Config, labels: np.ndarray, sizes: Sizes, *, seed: int | None = None
) -> Loss:
    """Creates the loss on the CPU.

    Args:
        config: Its ``loss`` section, and the model's head and feature scale, are used.
        labels: (N,) labels of the training images, for class weights and logit adjustment.
        sizes: Sizes of the model, classes and groups.
        seed: Seed of the parameters of terms, see `Loss`.
    """
    loss, shared = config.loss, HEADS[config.model.head].shared
    terms = head_terms(config)
    further = {name: _built_in(name, config) for name in LOSS_TERMS}
    further |= {
        name: Weighted(weight, added_term(name))
        for name, weight in loss.terms.model_dump().items()
        if weight
    }
    terms |= {
        name: each
        for name, each in further.items()
        if each is not None and (shared or each.term.any_head)
    }
    weights = None
    if loss.class_weights:
        counted = class_weights(labels, sizes.class_count, loss.class_weights)
        weights = torch.from_numpy(counted)
    shifts = None
    if loss.logit_adjustment:
        shifts = loss.logit_adjustment * torch.from_numpy(log_priors(labels, sizes.class_count))
    return Loss(
        sizes,
        terms,
        label_smoothing=loss.label_smoothing,
        class_weights=weights,
        focal=loss.focal,
        shifts=shifts,
        feature_scale=config.model.feature_scale,
        seed=seed,
    )


def _built_in(name: str, config: Config) -> Weighted | None:
    settings: dict[str, Any] = getattr(config.loss, name).model_dump()
    weight = settings.pop("weight")
    if not weight:
        return None
    module, _, kind = LOSS_TERMS[name].partition(":")
    term: LossTerm = getattr(import_module(module), kind)(**settings)
    return Weighted(weight, term)
