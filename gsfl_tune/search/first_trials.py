"""Trials that every study begins with: the user's own, the defaults, the published setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.search.study import Study

PUBLISHED_LATENT_DIM = 4096


def published_setting(feature_dim: int) -> dict[str, Any]:
    """The published GSFL-Net (arXiv 2004.01817) in this project's units.

    The paper's weights go with losses that are means over dimensions and sums over a batch of
    42; here squared norms are summed over dimensions and averaged over the batch.

    Args:
        feature_dim: Size D of the feature.
    """
    return {
        "model.latent_dim": PUBLISHED_LATENT_DIM,
        "model.groups.count": 5,
        "model.dropout": 0.5,
        "model.feature_scale": 1.0,
        "loss.reconstruction": 0.01 / feature_dim,
        "loss.class_center": 0.1 * 42 / PUBLISHED_LATENT_DIM,
        "loss.shared_center": 0.1 * 42 / PUBLISHED_LATENT_DIM,
        "loss.center_rate": 0.01,
    }


def enqueue_first_trials(
    study: Study, experiment: Experiment, feature_dim: int | None = None
) -> list[str]:
    """Enqueues the user's own configurations, the defaults and the published setting.

    They are clipped into the space, tried first and in this order, and never stopped early.
    Calling it again adds what a user has added meanwhile and repeats nothing.

    Args:
        study: The study.
        experiment: The experiment.
        feature_dim: Size of the default model's feature; without it the published setting is
            left out.

    Returns:
        What was changed to fit into the space, one line each, for the user.
    """
    space = experiment.space
    wanted: list[tuple[str, Mapping[str, Any]]] = []
    for index, values in enumerate(experiment.defaults().search.enqueue):
        wanted.append((f"enqueue[{index}]", values))
    wanted.append(("defaults", experiment.default_params()))
    if feature_dim:
        searched = {parameter.path for parameter in space.parameters}
        published = published_setting(feature_dim)
        kept = {path: value for path, value in published.items() if path in searched}
        if kept:
            wanted.append(("published", kept))
    notices: list[str] = []
    seen: list[dict[str, Any]] = []
    for origin, setting in wanted:
        params, changes = space.clip(setting)
        if params in seen:
            continue
        seen.append(params)
        study.enqueue(params, origin)
        notices += [f"{origin}: {change}" for change in changes]
    return notices
