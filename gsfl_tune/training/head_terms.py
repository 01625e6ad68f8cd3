"""The loss terms that a head brings along, as its row in `gsfl_tune.experiment.heads` says."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.heads import HEADS
from gsfl_tune.losses import Weighted


def head_terms(config: Config) -> dict[str, Weighted]:
    """Creates the terms of the head of a configuration."""
    place = HEADS[config.model.head].terms
    if not place:
        return {}
    terms: dict[str, Weighted] = _found(place)(config.loss.model_dump(), config.model.feature_scale)
    return terms


def head_term_parameters(kind: str, feature_dim: int, latent_dim: int, groups: int) -> int:
    """Counts the parameters of the terms of a head.

    Args:
        kind: The head.
        feature_dim: D.
        latent_dim: H.
        groups: Number of groups.
    """
    place = HEADS[kind].parameters
    return _found(place)(feature_dim, latent_dim, groups) if place else 0


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
