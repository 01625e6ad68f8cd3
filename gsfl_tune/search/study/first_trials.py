"""Trials that begin every study: the user's own, those of earlier runs, defaults, published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.run import StudyName
from gsfl_tune.search.samplers.history import OUTSIDE, WARM
from gsfl_tune.search.study.study import Study
from gsfl_tune.search.study.warm_start import earlier_trials

PUBLISHED_LATENT_DIM = 4096
# Largest share of a search's cost: a first trial is never stopped early.
MOST_OF_THE_BUDGET = 0.1
_SMALLEST_LATENT_DIM = 64


def published_setting(feature_dim: int, latent_dim: int = PUBLISHED_LATENT_DIM) -> dict[str, Any]:
    """Returns the published GSFL-Net (arXiv 2004.01817) in this project's units.

    The paper's weights belong to losses that are means over dimensions and sums over a batch of
    42. Here squared norms are summed over dimensions and averaged over the batch.

    Args:
        feature_dim: Size D of the feature.
        latent_dim: Size H; a size other than the published one keeps the ratios of the terms.
    """
    return {
        "model.latent_dim": latent_dim,
        "model.groups.count": 5,
        "model.dropout": 0.5,
        "model.feature_scale": 1.0,
        "loss.reconstruction": 0.01 / feature_dim,
        "loss.class_center": 0.1 * 42 / latent_dim,
        "loss.shared_center": 0.1 * 42 / latent_dim,
        "loss.center_rate": 0.01,
    }


def enqueue_first_trials(
    study: Study,
    experiment: Experiment,
    feature_dim: int | None = None,
    *,
    price: Callable[[Config], float] | None = None,
    budget: float | None = None,
    trials: int | None = None,
) -> list[str]:
    """Enqueues the user's own configurations, those of earlier runs, the defaults, the published.

    They are clipped into the space, tried first in this order, and never stopped early. The
    published setting is tried where it costs at most a tenth of the budget. Else its ratios are
    tried at a smaller latent size, or it is left out. One of an earlier run that costs more is left
    out too, unless the defaults cost as much. A second call adds only configurations and earlier
    runs that the user has added since.

    Args:
        study: The study.
        experiment: The experiment.
        feature_dim: Size of the default model's feature; without it the published setting is
            left out.
        price: Seconds of a training on a slot; default: cost is ignored.
        budget: Slot seconds that the search may take; default: all trials at the price of the
            defaults.
        trials: Number of trials that the search is expected to have; default ``search.trials``.

    Returns:
        What was changed to fit into the space, one line each, for the user.

    Raises:
        UserError: For an earlier run that cannot be used.
    """
    space = experiment.space
    wanted: list[tuple[str, Mapping[str, Any]]] = []
    for index, values in enumerate(experiment.defaults().search.enqueue):
        wanted.append((f"enqueue[{index}]", values))
    known = study.attributes.get(WARM, [])
    runs = [str(each) for each in experiment.defaults().search.warm_start]
    earlier, notices = _earlier(
        study.name,
        experiment,
        [run for run in runs if _place(run) not in known],
        price,
        budget,
        trials,
    )
    wanted += earlier
    wanted.append(("defaults", experiment.default_params()))
    # A second call may estimate another cost; the setting is still tried only once.
    tried = any(
        trial.user_attrs.get("origin") == "published" and OUTSIDE not in trial.user_attrs
        for trial in study.trials()
    )
    if feature_dim and not tried:
        published, notice = _published(experiment, feature_dim, price, budget)
        if notice is not None:
            notices.append(f"published: {notice}")
        if published:
            wanted.append(("published", published))
    seen: list[dict[str, Any]] = []
    for origin, setting in wanted:
        params, changes = space.clip(setting)
        if (effective := space.active_params(params)) in seen:
            continue
        seen.append(effective)
        study.enqueue(params, origin)
        notices += [f"{origin}: {change}" for change in changes]
    if runs:
        study.remember(WARM, sorted({*known, *map(_place, runs)}))
    return notices


def _place(run: str) -> str:
    return str(Path(run).expanduser().absolute())


def _earlier(
    name: StudyName,
    experiment: Experiment,
    runs: Sequence[str],
    price: Callable[[Config], float] | None,
    budget: float | None,
    trials: int | None,
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    """Returns configurations of earlier runs that the budget allows, and notices."""
    wanted: list[tuple[str, Mapping[str, Any]]] = []
    notices: list[str] = []
    for each in earlier_trials(experiment, runs, name, trials=trials):
        origin = f"{WARM} {Path(each.run).name}#{each.number}"
        if price is not None:
            asked = _share(experiment, each.params, price, budget)
            # The defaults are tried whatever they cost; what costs no more is worth it too.
            usual = _share(experiment, experiment.default_params(), price, budget)
            if asked > max(MOST_OF_THE_BUDGET, 1.01 * usual):
                notices.append(f"{origin}: {_too_dear(asked)}; it is left out")
                continue
        wanted.append((origin, each.params))
        notices += [f"{origin}: {change}" for change in each.notices]
    return wanted, notices


def _share(
    experiment: Experiment,
    values: Mapping[str, Any],
    price: Callable[[Config], float],
    budget: float | None,
) -> float:
    """Returns the share of the search that a trial takes."""
    if budget is None:
        budget = experiment.defaults().search.trials * price(experiment.defaults())
    return price(experiment.configure(experiment.space.clip(values)[0])) / max(budget, 1e-9)


def _too_dear(asked: float) -> str:
    return f"it would take {asked:.0%} of the search, allowed are {MOST_OF_THE_BUDGET:.0%}"


def _published(
    experiment: Experiment,
    feature_dim: int,
    price: Callable[[Config], float] | None,
    budget: float | None,
) -> tuple[dict[str, Any], str | None]:
    """Returns the published values of searched parameters, at a size that the budget allows."""
    space = experiment.space
    searched = {parameter.path for parameter in space.parameters}

    def setting(latent_dim: int) -> dict[str, Any]:
        published = published_setting(feature_dim, latent_dim)
        return {path: value for path, value in published.items() if path in searched}

    whole = setting(PUBLISHED_LATENT_DIM)
    if not whole or price is None:
        return whole, None

    def share(values: Mapping[str, Any]) -> float:
        return _share(experiment, values, price, budget)

    asked = share(whole)
    if asked <= MOST_OF_THE_BUDGET:
        return whole, None
    first = _too_dear(asked)
    if "model.latent_dim" in searched:
        latent_dim = int(space.clip(whole)[0].get("model.latent_dim", PUBLISHED_LATENT_DIM))
        while latent_dim // 2 >= _SMALLEST_LATENT_DIM:
            latent_dim //= 2
            smaller = setting(latent_dim)
            if share(smaller) <= MOST_OF_THE_BUDGET:
                used = space.clip(smaller)[0].get("model.latent_dim", latent_dim)
                return smaller, f"{first}; its ratios are tried at latent_dim {used}"
    return {}, f"{first}; it is left out"
