"""How many times a search runs the images through a frozen backbone."""

from __future__ import annotations

import math

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.model_config import ONE_LAYER
from gsfl_tune.models import pooling_class
from gsfl_tune.training.pricing.cost import search_cost
from gsfl_tune.training.pricing.pretraining import pretrainings
from gsfl_tune.training.pricing.values import values_of


def feature_passes(experiment: Experiment) -> tuple[int, int]:
    """Counts the passes of the images through a frozen backbone, for any number of trials.

    Returns:
        The largest number of passes over all un-augmented images, and over one augmented view.
    """
    trials = search_cost(experiment).trials
    paths = [f"model.{key}" for key in ("backbone", "weights", "pooling", "feature_precision")]
    paths += ["data.image_size", "data.fit", "training.cache_precision"]
    poolings = [pooling_class(name) for name in experiment.values("model.pooling")]
    if any(pooling.projected_channels or pooling.takes_dim for pooling in poolings):
        paths += ["model.pooling_channels", "model.pooling_dim"]
    if any(pooling.takes_streams for pooling in poolings):
        paths += ["model.backbone_b", "model.weights_b"]
    if not set(ONE_LAYER).issuperset(experiment.values("model.pooling")):
        paths.append("model.layer_b")
    if any(pooling.takes_power for pooling in poolings):
        paths.append("model.gem_power")
    recipes = math.prod(values_of(experiment, path) for path in paths) * pretrainings(experiment)
    views = experiment.defaults().data.views
    # Before a finetune stage the head trains on images as they are.
    heads = max(experiment.values("training.head.epochs")) > 0
    if not heads or min(experiment.values("training.finetune.epochs")) > 0:
        views = 0
    return int(min(recipes, trials)), views * int(min(recipes * strengths(experiment), trials))


def strengths(experiment: Experiment) -> float:
    """Counts the augmentation strengths of a space; each has its own views."""
    augment = [path for path in leaves() if path.startswith("data.augment.")]
    return math.prod(values_of(experiment, path) for path in augment)
